import { describe, expect, it } from "vitest";
import { findAgent } from "#agents";
import { type Files, TestChange } from "#tests/support/check-trees.ts";

const IMPORTS = 'import assert from "node:assert/strict";\nimport { test } from "node:test";\n';
const adds = (name: string, sum = 3) =>
  `import { add } from "./add.js";\ntest("${name}", () => assert.equal(add(1, 2), ${sum}));\n`;
const CODE: Files = {
  "package.json": JSON.stringify({ type: "module", scripts: { test: "node --test" } }),
  "add.js": "export const add = (a, b) => a + b;\n",
};
const TESTED: Files = { ...CODE, "add.test.js": `${IMPORTS}${adds("adds")}` };
const BARE: Files = { "package.json": '{"type":"module"}', "add.js": CODE["add.js"] ?? "" };

async function judge(before: Files, after: Record<string, string | null>) {
  using change = new TestChange(before, after);
  const verdict = await findAgent("TestAgent")?.validate(change.change, change);
  if (verdict === undefined) throw new Error("TestAgent is not registered");
  return verdict;
}
const problems = async (before: Files, after: Record<string, string | null>) =>
  (await judge(before, after)).problems.join("\n");

describe("TestAgent's result", () => {
  it("are tests that passed together with those that were there", async () => {
    const more = `${IMPORTS}${adds("adds more")}`;
    const { problems: none, checks } = await judge(TESTED, { "more.test.js": more });
    expect(none).toEqual([]);
    const tests = checks.find(({ name }) => name === "tests");
    expect(tests).toMatchObject({ command: "npm run test", passed: true, before: true });
    expect(tests?.output).toMatch(/pass 2$/m);
    expect(
      await problems(TESTED, { "add.test.js": `${IMPORTS}${adds("adds")}${adds("again").split("\n")[1]}\n` }),
    ).toBe("");
  });

  it("may be a project's first tests", async () => {
    expect(await problems(BARE, { "add.test.js": `${IMPORTS}${adds("adds")}` })).toBe("");
    const python = {
      "test_add.py":
        "import unittest\nfrom add import add\n\n\nclass T(unittest.TestCase):\n    def test_add(self):\n        self.assertEqual(add(1, 2), 3)\n",
    };
    expect(await problems({ "add.py": "def add(a, b):\n    return a + b\n" }, python)).toBe("");
    expect(await problems({ "add.py": "def add(a, b):\n    return a - b\n" }, python)).toContain(
      "The tests fail",
    );
  });

  it("is none without tests", async () => {
    expect(await problems(TESTED, { "b.js": "export const b = 1;\n" })).toContain(
      "No test was written or changed",
    );
    expect(await problems(TESTED, {})).toContain("No test was written or changed");
    expect(await problems(TESTED, { "b.test.js": "// test('later')\n" })).toContain("No test was written");
  });

  it("is refused when the tests fail, with what they said", async () => {
    const said = await problems(TESTED, { "more.test.js": `${IMPORTS}${adds("wrong", 4)}` });
    expect(said).toContain("The tests fail: `npm run test` ended with code 1");
    expect(said).toMatch(/fail 1/);
  });

  it("is refused when its tests are not among those that run", async () => {
    const narrow = {
      ...TESTED,
      "package.json": '{"type":"module","scripts":{"test":"node --test add.test.js"}}',
    };
    expect(await problems(narrow, { "more.test.js": `${IMPORTS}${adds("adds more")}` })).toContain(
      "more.test.js: is not run by `npm run test`",
    );
    const silent = {
      ...TESTED,
      "package.json": '{"type":"module","scripts":{"test":"node add.test.js >/dev/null"}}',
    };
    expect(await problems(silent, { "more.test.js": `${IMPORTS}${adds("adds more")}` })).toContain(
      "is not run by",
    );
    const stronger = `${IMPORTS}${adds("adds")}`.replace("));", "), assert.ok(true));");
    expect(await problems(silent, { "add.test.js": stronger })).toBe("");
  });

  it("is not believed a test command of its own making", async () => {
    const claims = { "package.json": '{"type":"module","scripts":{"test":"echo \'# pass 3\'"}}' };
    const wrong = `${IMPORTS}${adds("wrong", 4)}`;
    expect(await problems(BARE, { ...claims, "more.test.js": wrong })).toContain("The tests fail");
    expect(await problems(TESTED, { ...claims, "more.test.js": wrong })).toContain("The tests fail");
  });

  it("shows by itself that it passes where the project's own tests cannot run", async () => {
    const packaged = {
      ...CODE,
      "package.json": '{"type":"module","scripts":{"test":"not-installed-here run"}}',
    };
    const { problems: none, checks } = await judge(packaged, { "more.test.js": `${IMPORTS}${adds("adds")}` });
    expect(none).toEqual([]);
    expect(checks.filter(({ name }) => name === "tests").map(({ passed }) => passed)).toEqual([false, true]);
    expect(await problems(packaged, { "more.test.js": `${IMPORTS}${adds("wrong", 4)}` })).toContain(
      "The tests fail",
    );
  });

  it("is refused when it deletes or weakens tests", async () => {
    const more = { "more.test.js": `${IMPORTS}${adds("adds more")}` };
    const text = TESTED["add.test.js"]?.toString() ?? "";
    const two = { ...TESTED, "add.test.js": `${text}test("two", () => { assert.ok(1); assert.ok(2); });\n` };
    expect(await problems(TESTED, { "add.test.js": null })).toContain(
      "add.test.js: a test file that was there was removed",
    );
    expect(await problems(two, { "add.test.js": null, ...more })).toContain("was removed");
    expect(await problems(TESTED, { "add.test.js": text.replace("test(", "test.skip("), ...more })).toContain(
      "by skip, only",
    );
    expect(
      await problems(TESTED, { "add.test.js": text.replace("() =>", "{ skip: true }, () =>"), ...more }),
    ).toContain("by skip");
    expect(await problems(two, { "add.test.js": text, ...more })).toContain("holds fewer tests than before");
    const less = (two["add.test.js"] ?? "").replace("assert.ok(2);", "");
    expect(await problems(two, { "add.test.js": less, ...more })).toBe(
      "add.test.js: asserts less than before.",
    );
    const idle = `${IMPORTS}test("idle", () => {});\n`;
    expect(await problems(TESTED, { "idle.test.js": idle })).toContain("holds tests that assert nothing");
  });

  it("may move tests, and speak of skipping", async () => {
    const text = (TESTED["add.test.js"]?.toString() ?? "").replace("./add.js", "../add.js");
    const moved = {
      "add.test.js": null,
      "tests/add.test.js": `${text}// it.skip(\nassert.notEqual("test.only(", 1);\n`,
    };
    expect(await problems(TESTED, moved)).toBe("");
  });
});
