import { describe, expect, it } from "vitest";
import { findAgent } from "#agents";
import { type Files, TestChange } from "#tests/support/check-trees.ts";
import { within } from "#tests/support/within.ts";
import { readPage } from "./markdown.ts";

const PROJECT: Files = {
  "package.json": '{"scripts":{"build":"x","test:unit":"y"}}',
  "src/a.js": "// old\nexport const a = 1; // one\n",
  "src/a.py": 'def a():\n    """Old."""\n    return 1  # one\n',
  "docs/guide.md":
    "# Guide\n\n## How it *works*\n\n## Twice\n\n## Twice\n\nSetext\n------\n\n<a id='own'></a>\n",
  "old.md": "[gone](gone.md)\n",
};

async function problems(after: Record<string, string | null>, before: Files = PROJECT) {
  using change = new TestChange(before, after);
  return (
    (await findAgent("DocAgent")?.validate(change.change, change))?.problems ?? ["not registered"]
  ).join("\n");
}

describe("DocAgent's result", () => {
  it("are texts, comments and docstrings", async () => {
    expect(await problems({ "README.md": "# A\n", "docs/notes.txt": "x", LICENSE: "y" })).toBe("");
    expect(await problems({ "src/a.js": "/** New: `it`. */\nexport const a = 1;\n" })).toBe("");
    expect(
      await problems({ "src/a.py": '"""Module."""\n# why\ndef a():\n    """New."""\n    return 1\n' }),
    ).toBe("");
    expect(await problems({})).toBe("");
  });

  it("is refused when code changes", async () => {
    expect(await problems({ "src/a.js": "// old\nexport const a = 2;\n" })).toBe(
      "src/a.js: more than comments changed.",
    );
    expect(await problems({ "src/a.js": "export const a = '\n" })).toContain("cannot be told for certain");
    expect(await problems({ "src/a.py": 'def a():\n    """Old."""\n    return 2\n' })).toContain(
      "more than comments and",
    );
    expect(await problems({ "src/a.py": "def a(:\n" })).toContain("cannot be told for certain");
    expect(await problems({ "src/b.js": "1;\n" })).toBe("src/b.js: is no documentation, and was added.");
    expect(await problems({ "src/a.js": null })).toBe("src/a.js: is no documentation, and was removed.");
    expect(await problems({ "package.json": "{}" })).toContain("is neither documentation nor code");
  });

  it("has links that lead somewhere", async () => {
    const good = [
      "[a](docs/guide.md) [b](./docs/guide.md#how-it-works 'title') [c](/docs/guide.md#twice-1) [d](#here)",
      "[e](docs/) [f](https://x.test/no) [g](mailto:a@x.test) ![h](<docs/guide.md>) `[code](no.md)` [i](src/a.js#L1)",
      "[j](docs/guide.md#setext) [k](docs/guide.md#own) [l][ref] <a href='docs'>m</a> [n](docs%2Fguide.md?x#twice)",
      "",
      "[ref]: docs/guide.md",
      "```",
      "[o](no.md)",
      "```",
      "# Here",
    ];
    expect(await problems({ "README.md": good.join("\n") })).toBe("");
    for (const bad of [
      "[a](no.md)",
      "![a](docs/no.png)",
      "[a](docs/guide.md#no)",
      "[a](#no)",
      "[a](../x.md)",
      "[a](docs/../../x.md)",
      "[r]: no.md",
      '<img alt="" src="no.png">',
      "[![a](docs/guide.md)](no.md)",
    ]) {
      expect(await problems({ "README.md": `text\n${bad}\n` })).toMatch(
        /^README\.md: line 2: the link to ".*" leads nowhere: /,
      );
    }
  });

  it("does not answer for links that led nowhere before", async () => {
    expect(await problems({ "old.md": "[gone](gone.md) and [guide](docs/guide.md)\n" })).toBe("");
    expect(await problems({ "old.md": "[gone](gone.md) [more](more.md)\n" })).toContain('"more.md"');
    const linked = { ...PROJECT, "x.md": "[g](docs/guide.md)\n" };
    expect(await problems({ "docs/guide.md": null, "x.md": "[g](docs/guide.md) !\n" }, linked)).toContain(
      "there is no docs/guide.md",
    );
  });

  it("closes its fences and has one title", async () => {
    expect(await problems({ "README.md": "# A\n\n```sh\nls\n" })).toBe(
      "README.md: the code fence in line 3 is not closed.",
    );
    expect(await problems({ "README.md": "# A\n````\n```\n````\n~~~\n```\n~~~\n" })).toBe("");
    expect(await problems({ "README.md": "# A\n\nB\n=\n" })).toBe(
      "README.md: has 2 first-level headings, in lines 1, 3.",
    );
    expect(await problems({ "README.md": "# A\n```sh\n# comment\n```\n" })).toBe("");
    const two = { "README.md": "# A\n# B\n" };
    expect(await problems({ "README.md": "# A\n# B\nmore\n" }, two)).toBe("");
  });

  it("names scripts that are there", async () => {
    expect(
      await problems({ "README.md": "Run `npm run build` or `npm run test:unit`. npm testing.\n" }),
    ).toBe("");
    expect(await problems({ "README.md": "```sh\nnpm run deploy\nnpm test\n```\n" })).toBe(
      'README.md: names the npm script "deploy", which is not there.\nREADME.md: names the npm script "test", which is not there.',
    );
    expect(
      await problems(
        { "README.md": "`npm run deploy`, twice\n" },
        { ...PROJECT, "README.md": "`npm run deploy`" },
      ),
    ).toBe("");
    expect(
      await problems(
        { "README.md": "`npm run up`\n" },
        { ...PROJECT, "web/package.json": '{"scripts":{"up":""}}' },
      ),
    ).toBe("");
  });

  it("is read in time, whatever it is", () => {
    for (const piece of [
      "[",
      "](",
      "[a](",
      "![[",
      "`",
      "```\n",
      "# ",
      "<a ",
      "=\n",
      "npm run ",
      "[a]: ",
      "(",
      "\\[",
      " ",
      "`a",
    ]) {
      const text = piece.repeat(500_000 / piece.length);
      within(10_000, () => readPage(text));
      within(10_000, () => readPage(text.replace(/.{4900}/gs, "$&\n")));
    }
  });
});
