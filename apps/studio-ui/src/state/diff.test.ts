import { describe, expect, it } from "vitest";
import { diffHunks } from "./diff.ts";

describe("diffHunks", () => {
  it("numbers lines on both sides and counts what it leaves out", () => {
    const before = Array.from({ length: 20 }, (_, i) => `line ${i + 1}`);
    const after = before.with(14, "Zeile 15");
    const [hunk, ...rest] = diffHunks(`${before.join("\n")}\n`, `${after.join("\n")}\n`);
    expect(rest).toEqual([]);
    expect(hunk?.skipped).toBe(11);
    expect(hunk?.lines.filter((line) => line.kind !== "same")).toEqual([
      { kind: "removed", text: "line 15", before: 15, after: undefined },
      { kind: "added", text: "Zeile 15", before: undefined, after: 15 },
    ]);
  });

  it("shows a new file as added and a deleted one as removed", () => {
    expect(diffHunks(null, "a\nb\n")[0]?.lines.map((line) => line.kind)).toEqual(["added", "added"]);
    expect(diffHunks("a\n", null)[0]?.lines.map((line) => line.kind)).toEqual(["removed"]);
  });

  it("gives up on huge files instead of freezing the page", () => {
    expect(diffHunks("a".repeat(600_000), "b")).toEqual([]);
  });
});
