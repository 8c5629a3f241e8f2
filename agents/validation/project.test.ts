import { describe, expect, it } from "vitest";
import { checkProject } from "#agents";
import { type Files, TestChange } from "#tests/support/check-trees.ts";

const TEST = `import assert from "node:assert/strict";
import { test } from "node:test";
import { add } from "./add.js";
test("adds", () => assert.equal(add(1, 2), 3));
`;
const JS: Files = {
  "package.json": JSON.stringify({ type: "module", scripts: { test: "node --test" } }),
  "add.js": "export const add = (a, b) => a + b;\n",
  "add.test.js": TEST,
};
const BROKEN = "export const add = (a, b) => a - b;\n";

async function verdictOf(before: Files, after: Record<string, string | null>) {
  using change = new TestChange(before, after);
  const { problems, checks } = await checkProject(change, Object.keys(after));
  return {
    problems,
    checks: checks.map(({ name, command, passed, before: earlier }) => [name, command, passed, earlier]),
    commands: { before: change.before.commands, after: change.after.commands },
  };
}

describe("checkProject", () => {
  it("runs the project's own tests, and says so", async () => {
    const { problems, checks, commands } = await verdictOf(JS, { "b.js": "export const b = 1;\n" });
    expect(problems).toEqual([]);
    expect(checks).toContainEqual(["tests", "npm run test", true, undefined]);
    expect(commands.before).toEqual([]);
  });

  it("holds a failure against a change when the same command passed before", async () => {
    const { problems, checks } = await verdictOf(JS, { "add.js": BROKEN });
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatch(
      /^The project's tests passed before this change and fail now: `npm run test` ended/,
    );
    expect(checks).toContainEqual(["tests", "npm run test", false, true]);
  });

  it("does not hold against it what failed already, as for want of packages", async () => {
    const red = { ...JS, "add.js": BROKEN };
    const { problems, checks } = await verdictOf(red, { "b.js": "1;\n" });
    expect(problems).toEqual([]);
    expect(checks).toContainEqual(["tests", "npm run test", false, false]);
    const bare = { "package.json": JSON.stringify({ scripts: { test: "vitest run", typecheck: "tsc" } }) };
    expect((await verdictOf(bare, { "b.js": "1;\n" })).checks).toEqual([
      ["syntax: JavaScript, TypeScript, JSON", undefined, true, undefined],
      ["types", "npm run typecheck", false, false],
      ["tests", "npm run test", false, false],
    ]);
  });

  it("finds two changes that pass each by itself and fail together", async () => {
    const base = { ...JS, "b.js": 'import { add } from "./add.js";\nexport const three = add(1, 2);\n' };
    const renamed = {
      "add.js": "export const sum = (a, b) => a + b;\n",
      "add.test.js": TEST.replaceAll("add(", "sum(").replace("{ add }", "{ sum }"),
      "b.js": base["b.js"].replaceAll("add(", "sum(").replace("{ add }", "{ sum }"),
    };
    const user = {
      "c.js": 'import { add } from "./add.js";\nexport const four = add(2, 2);\n',
      "c.test.js": 'import "./c.js";\n',
    };
    expect((await verdictOf(base, renamed)).problems).toEqual([]);
    expect((await verdictOf(base, user)).problems).toEqual([]);
    expect((await verdictOf(base, { ...renamed, ...user })).problems).toHaveLength(1);
  });

  it("runs nothing when a file does not parse", async () => {
    const { problems, checks } = await verdictOf(JS, { "add.js": "export const add = (" });
    expect(problems).toHaveLength(1);
    expect(checks).toHaveLength(1);
  });

  it("finds tests without a script, in JavaScript and in Python", async () => {
    const { "package.json": _, ...loose } = JS;
    const plain = {
      ...loose,
      "package.json": '{"type":"module","scripts":{"test":"echo \\"Error: no test specified\\" && exit 1"}}',
    };
    expect((await verdictOf(plain, { "add.js": BROKEN })).problems[0]).toContain("`node --test` ended");
    const python = {
      "calc/__init__.py": "",
      "calc/add.py": "def add(a, b):\n    return a + b\n",
      "tests/test_add.py":
        "import unittest\nfrom calc.add import add\n\n\nclass T(unittest.TestCase):\n    def test_add(self):\n        self.assertEqual(add(1, 2), 3)\n",
    };
    const wrong = "def add(a, b):\n    return a - b\n";
    expect((await verdictOf(python, { "calc/add.py": wrong })).problems).toHaveLength(1);
    expect((await verdictOf(python, { "calc/more.py": wrong })).problems).toEqual([]);
  });

  it("runs what a script has before and after it, and the project's own programs", async () => {
    const scripts = { pretest: "echo one > log", test: "own two && [ $# = 0 ]", posttest: "grep -q two log" };
    const files = {
      "package.json": JSON.stringify({ scripts }),
      "node_modules/.bin/own": "#!/bin/sh\necho $1 >> log\n",
    };
    const { checks } = await verdictOf(files, { "a.txt": "a" });
    expect(checks).toContainEqual(["tests", "npm run test", true, undefined]);
  });

  it("is not misled by a manifest that is none", async () => {
    for (const manifest of [
      "[]",
      "null",
      '{"scripts":3}',
      '{"scripts":{"test":{}}}',
      '{"scripts":null}',
      "{",
    ]) {
      const { problems } = await verdictOf({ "package.json": manifest }, { "a.txt": "a" });
      expect(problems).toEqual([]);
    }
  });
});
