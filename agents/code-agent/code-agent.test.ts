import { describe, expect, it } from "vitest";
import { findAgent } from "#agents";
import { type Files, TestChange } from "#tests/support/check-trees.ts";
import { within } from "#tests/support/within.ts";
import { fileProblems } from "../validation/files.ts";

const CONFLICT = "a\n<<<<<<< ours\nb\n=======\nc\n>>>>>>> theirs\n";

describe("CodeAgent's result", () => {
  const problems = async (
    before: Files,
    after: Record<string, string | Uint8Array | null>,
    answer = "Done.",
  ) => {
    using change = new TestChange(before, after, answer);
    return (await findAgent("CodeAgent")?.validate(change.change, change))?.problems;
  };

  it("may be a change, a deletion, or just an answer", async () => {
    expect(await problems({}, { "a.js": "export {};\n" })).toEqual([]);
    expect(await problems({ "a.js": "x" }, { "a.js": null }, "")).toEqual([]);
    expect(await problems({}, {})).toEqual([]);
  });

  it("is none when nothing was changed or said", async () => {
    expect(await problems({}, {}, " \n")).toEqual(["The agent neither changed a file nor answered."]);
  });

  it("is refused with conflict markers that were not there before", async () => {
    expect(await problems({ "a.md": "a\n" }, { "a.md": CONFLICT })).toEqual([
      "a.md: conflict markers were left in it.",
    ]);
    expect(await problems({}, { "a.md": CONFLICT.replaceAll("\n", "\r\n") })).toHaveLength(1);
    expect(await problems({ "a.md": CONFLICT }, { "a.md": `${CONFLICT}more\n` })).toEqual([]);
    expect(await problems({}, { "a.md": "Title\n=======\ntext\n" })).toEqual([]);
  });

  it("is judged at once whatever it is full of", async () => {
    for (const piece of ["<<<<<<< a\n", "=======\n", "<<<<<<< a\n=======\n", "<<<<<<< a\n>>>>>>> b\n"]) {
      const after = new TextEncoder().encode(piece.repeat(1_000_000 / piece.length));
      const change = { files: [{ path: "a.md", before: null, after }], answer: "" };
      expect(within(10_000, () => fileProblems(change))).toEqual([]);
    }
  });

  it("is refused below .git, whatever its case, and nowhere else", async () => {
    expect(await problems({}, { ".git/hooks/pre-commit": "x" })).toHaveLength(1);
    expect(await problems({ "sub/.GIT/config": "x" }, { "sub/.GIT/config": null })).toHaveLength(1);
    expect(await problems({}, { ".gitignore": "x" })).toEqual([]);
  });

  it("leaves binary and huge files alone, and says no more than a person reads", async () => {
    const binary = new Uint8Array([0xff, 0xfe, 0x00]);
    const huge = new Uint8Array(3 * 1024 * 1024).fill(60);
    expect(await problems({}, { "logo.bin": binary, "big.txt": huge })).toEqual([]);
    const many = Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`f${i}`, CONFLICT]));
    expect(await problems({}, many)).toHaveLength(20);
  });
});
