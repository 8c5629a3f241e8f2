import { describe, expect, it } from "vitest";
import { findAgent } from "#agents";
import { type Files, TestChange } from "#tests/support/check-trees.ts";

const PROJECT: Files = {
  "package.json": '{"type":"module","scripts":{"test":"node --test"}}',
  "last.js": "export const last = (list) => list[list.length];\n",
  "first.js": "export const first = (list) => list[0];\n",
  "first.test.js":
    'import assert from "node:assert/strict";\nimport { test } from "node:test";\nimport { first } from "./first.js";\ntest("first", () => assert.equal(first([1, 2]), 1));\n',
};
const MENDED = { "last.js": "export const last = (list) => list[list.length - 1];\n" };
const INLINE = `node -e 'import("./last.js").then(({ last }) => process.exit(last([1, 2]) === 2 ? 0 : 1))'`;
const TEST = {
  "last.test.js":
    'import assert from "node:assert/strict";\nimport { test } from "node:test";\nimport { last } from "./last.js";\ntest("last", () => assert.equal(last([1, 2]), 2));\n',
};
const answer = (command: string) => `The index was one too far.\n\n\`\`\`repro\n${command}\n\`\`\`\n`;

async function judge(after: Record<string, string | null>, words: string, before: Files = PROJECT) {
  using change = new TestChange(before, after, words);
  const verdict = await findAgent("DebugAgent")?.validate(change.change, change);
  if (verdict === undefined) throw new Error("DebugAgent is not registered");
  return { ...verdict, said: verdict.problems.join("\n") };
}

describe("DebugAgent's result", () => {
  it("is a reproduction that failed and passes", async () => {
    const { said, checks } = await judge(MENDED, answer(INLINE));
    expect(said).toBe("");
    expect(checks.slice(0, 2)).toMatchObject([
      { name: "reproduction on the old code", passed: true },
      { name: "reproduction", command: INLINE, passed: true, before: false },
    ]);
    expect(checks.map(({ name }) => name)).toContain("tests");
  });

  it("may bring a test or a file for its command", async () => {
    expect((await judge({ ...MENDED, ...TEST }, answer("node --test last.test.js"))).said).toBe("");
    const script = {
      "tools/show.mjs": 'import { last } from "../last.js";\nif (last([1]) !== 1) process.exit(1);\n',
    };
    expect((await judge({ ...MENDED, ...script }, answer("node tools/show.mjs"))).said).toBe("");
    expect((await judge({ ...MENDED, ...script }, answer("cd tools && node show.mjs"))).said).toBe("");
  });

  it("may mend what never ends, or what is not there", async () => {
    const endless = { ...PROJECT, "last.js": "export const last = () => { for (;;); };\n" };
    const limited = `timeout 2 ${INLINE}`;
    expect((await judge(MENDED, answer(limited), endless)).said).toBe("");
    const { "last.js": _, ...without } = PROJECT;
    expect((await judge(MENDED, answer(INLINE), without)).said).toBe("");
    const broken = {
      ...PROJECT,
      "first.test.js": `${PROJECT["first.test.js"]}throw new Error("left over");\n`,
    };
    const fixed = { "first.test.js": `${PROJECT["first.test.js"]}` };
    expect((await judge(fixed, answer("node --test first.test.js"), broken)).said).toBe("");
  });

  it("is refused without exactly one command", async () => {
    expect((await judge(MENDED, "It is mended.")).said).toContain("one block ```repro");
    expect((await judge(MENDED, answer(" "))).said).toContain("an empty one");
    expect((await judge(MENDED, answer("a") + answer("b"))).said).toContain("found: 2");
    expect((await judge(MENDED, "```repro\nnode a.js")).said).toContain("found: 0");
    expect((await judge(MENDED, answer("x".repeat(5000)))).said).toContain("longer than 4000");
  });

  it("is refused when the old code passes it, or the new one fails it", async () => {
    expect((await judge(MENDED, answer("node -e 0"))).said).toContain("does not fail on the old code");
    const wrong = { "last.js": "export const last = (list) => list.length;\n// one\n" };
    const still = { "last.js": "export const last = (list) => list[0];\n" };
    expect((await judge(wrong, answer(INLINE))).said).toBe("");
    expect((await judge(still, answer(INLINE))).said).toContain("The reproduction still fails");
    expect((await judge(MENDED, answer("no-such-program"))).said).toContain("cannot be run");
  });

  it("is refused when it mends nothing", async () => {
    expect((await judge({}, answer(INLINE))).said).toContain("Nothing was changed");
    expect((await judge(TEST, answer("node --test last.test.js"))).said).toContain(
      "Only the reproduction was written",
    );
  });

  it("is refused when it breaks something else", async () => {
    const broken = { ...MENDED, "first.js": "export const first = (list) => list[1];\n" };
    expect((await judge(broken, answer(INLINE))).said).toContain(
      "tests passed before this change and fail now",
    );
  });
});
