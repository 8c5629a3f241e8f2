import { describe, expect, it } from "vitest";
import { type Files, TestChange } from "#tests/support/check-trees.ts";
import { checkSyntax } from "./syntax.ts";

const verdictOf = async (before: Files, after: Files) => {
  using change = new TestChange(before, after);
  return await checkSyntax(change, Object.keys(after));
};
const refused = async (before: Files, after: Files) =>
  (await verdictOf(before, after)).problems.map((problem) => problem.slice(0, problem.indexOf(":")));

describe("checkSyntax", () => {
  it("takes what parses, in every dialect", async () => {
    const { problems, checks } = await verdictOf(
      { "package.json": '{ "name": "x" }', "lib/package.json": '{ "type": "module" }' },
      {
        "module.js": 'import a from "./a.js";\nexport default await a;\n',
        "script.js": "#!/usr/bin/env node\nif (require) return;\nwith (module) exports;\n",
        "lib/a.js": "export const a = import.meta.url;\n",
        "a.cjs": "module.exports = 1;\n",
        "types.ts":
          "enum A { x }\nclass P { constructor(private readonly q: A) {} }\nexport const y = <A>P.length;\n",
        "types.d.mts": "declare module 'x';\nexport type A = 1;\n",
        "view.js": "import React from 'react';\nexport const A = () => <p>hi</p>;\n",
        "tsconfig.json": '{\n  // Why.\n  "a": ["//", ],\n}\n',
        "data.json": "[1]",
        "tool.py": "match 1:\n    case _: pass\n",
        "run.sh": "if true; then echo ok; fi\n",
        "arrays.sh": "a=(1 2)\nif [[ -n $a ]]; then echo; fi\n",
        "bin/start": "#!/bin/sh\nexec true\n",
        "name with 'quote'.js": "1;\n",
        "-e.js": "1;\n",
        "notes.md": "``` (",
      },
    );
    expect(problems).toEqual([]);
    expect(checks.map(({ name, passed }) => [name, passed])).toEqual([
      ["syntax: JavaScript, TypeScript, JSON", true],
      ["syntax: Python", true],
      ["syntax: shell", true],
    ]);
  });

  it("refuses what does not, with the file's name", async () => {
    const broken = {
      "a.js": "const a = ;\n",
      "b.mjs": "return 1;\n",
      "c.cjs": "import a from 'a';\n",
      "d.ts": "const a: number = = 3;\n",
      "e.mts": "export const a: = 1;\n",
      "f.json": "{,}",
      "package.json": '{ "a": 1, } // note',
      "lib/-g.js": "function (\n",
      "h.py": "def f(:\n    pass\n",
      "nul.py": "a = 1\0\n",
      "i.sh": "if true; then\n",
      "bin/start": "#!/usr/bin/env bash\nfor in do\n",
    };
    expect((await refused({}, broken)).toSorted()).toEqual(Object.keys(broken).toSorted());
    expect((await verdictOf({}, { "a.js": "1;\n2;\nconst a = ;\n" })).problems[0]).toMatch(
      /^a\.js: does not parse: Unexpected token ';' \(line 3\)$/,
    );
  });

  it("does not hold against a change what did not parse before", async () => {
    expect(
      await refused({ "a.js": "{{ name }} =", "b.py": "{{ x" }, { "a.js": "{{ title }} =", "b.py": "{{ y" }),
    ).toEqual([]);
    expect(await refused({ "a.js": "1;" }, { "a.js": "{{ title }} =" })).toEqual(["a.js"]);
  });

  it("runs nothing of what it parses, and cannot be told lies by it", async () => {
    const marker = "0\\tb.js does not parse";
    const after = {
      "a.js": `console.log("${marker}");\nprocess.exit(1);\n`,
      "b.sh": `printf '${marker}'; exit 3\n`,
    };
    expect(await refused({}, after)).toEqual([]);
    expect(await refused({}, { "x.js": "throw `\n1\ty.js\n` +;\n", "y.js": "1;\n" })).toEqual(["x.js"]);
  });

  it("is done with hostile contents in one piece", async () => {
    const after = {
      "binary.js": new Uint8Array([0xff, 0xfe, 0, 1, 2, 3]),
      "huge.json": new Uint8Array(3 * 1024 * 1024).fill(0x5b),
      "deep.json": "[".repeat(200_000),
      "deep.py": `${"(".repeat(50_000)}`,
      "empty.ts": "",
    };
    expect((await refused({}, after)).toSorted()).toEqual(["binary.js", "deep.json", "deep.py"]);
  });

  it("parses many files with long names in portions", async () => {
    const name = (i: number) => `${"d".repeat(200)}/${"e".repeat(200)}/${i}.js`;
    const after = Object.fromEntries(
      Array.from({ length: 300 }, (_, i) => [name(i), i === 299 ? "(" : "1;"]),
    );
    expect(await refused({}, after)).toEqual([name(299)]);
  });
});
