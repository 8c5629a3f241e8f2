import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { within } from "#tests/support/within.ts";
import { mergeText } from "./merge-text.ts";

const LABELS = { ours: "project", theirs: "yours" };
const merge = (base: string, ours: string, theirs: string) => mergeText(base, ours, theirs, LABELS);

describe("mergeText", () => {
  it.each([
    ["one side only", "a\nb\nc\n", "a\nb\nc\n", "a\nX\nc\n", "a\nX\nc\n"],
    ["both the same", "a\nb\nc\n", "a\nX\nc\n", "a\nX\nc\n", "a\nX\nc\n"],
    ["top and bottom", "a\nb\nc\n", "A\nb\nc\n", "a\nb\nC\n", "A\nb\nC\n"],
    ["a deletion and an edit apart", "a\nb\nc\nd\n", "b\nc\nd\n", "a\nb\nc\nD\n", "b\nc\nD\n"],
    ["insertions apart", "a\nb\nc\n", "0\na\nb\nc\n", "a\nb\nc\n9\n", "0\na\nb\nc\n9\n"],
    ["no final newline kept", "a\nb\nc", "A\nb\nc", "a\nb\nc", "A\nb\nc"],
    ["final newline added", "a\nb\nc", "A\nb\nc", "a\nb\nc\n", "A\nb\nc\n"],
    ["final newline removed", "a\nb\nc\n", "A\nb\nc\n", "a\nb\nc", "A\nb\nc"],
    ["CRLF kept", "a\r\nb\r\nc\r\n", "A\r\nb\r\nc\r\n", "a\r\nb\r\nC\r\n", "A\r\nb\r\nC\r\n"],
    ["CRLF -> LF and an edit", "a\r\nb\r\nc\r\n", "a\nb\nc\n", "a\r\nB\r\nc\r\n", "a\nB\nc\n"],
    ["an edit and LF -> CRLF", "a\nb\nc\n", "a\nB\nc\n", "a\r\nb\r\nc\r\n", "a\r\nB\r\nc\r\n"],
    ["mixed line ends stay as they are", "a\r\nb\nc\r\n", "A\r\nb\nc\r\n", "a\r\nb\nC\r\n", "A\r\nb\nC\r\n"],
    ["emptied and untouched", "a\n", "", "a\n", ""],
    ["from nothing", "", "", "a\n", "a\n"],
    ["a byte order mark stays", "\ufeffa\nb\nc\n", "\ufeffa\nb\nC\n", "\ufeffA\nb\nc\n", "\ufeffA\nb\nC\n"],
    [
      "names of Object.prototype as lines",
      "__proto__\nb\nconstructor",
      "__proto__\nb\nX",
      "Y\nb\nconstructor",
      "Y\nb\nX",
    ],
  ])("merges: %s", (_name, base, ours, theirs, result) => {
    expect(merge(base, ours, theirs)).toEqual({ clean: true, text: result });
  });

  it.each([
    ["the same line", "a\nb\nc\n", "a\nX\nc\n", "a\nY\nc\n"],
    ["neighbouring lines", "a\nb\n", "A\nb\n", "a\nB\n"],
    ["an insertion at the same place", "a\nc\n", "a\n1\nc\n", "a\n2\nc\n"],
    ["a deletion and an edit", "a\nb\nc\n", "a\nc\n", "a\nB\nc\n"],
    ["both from nothing", "", "a\n", "b\n"],
  ])("does not merge: %s", (_name, base, ours, theirs) => {
    const result = merge(base, ours, theirs);
    expect(result.clean).toBe(false);
    expect(result.text).toMatch(/<<<<<<< project\n[\s\S]*=======\n[\s\S]*>>>>>>> yours\n/);
  });

  it("puts both sides between markers, each on lines of its own", () => {
    expect(merge("a\nb\nc", "a\nb\nX", "a\nb\nY").text).toBe(
      "a\nb\n<<<<<<< project\nX\n=======\nY\n>>>>>>> yours\n",
    );
    expect(merge("a\r\nb\r\n", "a\r\nX\r\n", "a\r\nY\r\n").text).toBe(
      "a\r\n<<<<<<< project\r\nX\r\n=======\r\nY\r\n>>>>>>> yours\r\n",
    );
  });

  it("edits of different places both survive", () => {
    const line = fc.stringMatching(/^[a-z ]{0,6}$/);
    const end = fc.constantFrom("\n", "\r\n");
    const cases = fc.record({
      lines: fc.array(line, { minLength: 9, maxLength: 40 }),
      end,
      at: fc.nat(),
      ours: fc.array(fc.stringMatching(/^OURS[a-z]{0,3}$/), { maxLength: 4 }),
      theirs: fc.array(fc.stringMatching(/^THEIRS[a-z]{0,3}$/), { maxLength: 4 }),
      swap: fc.boolean(),
    });
    fc.assert(
      fc.property(cases, ({ lines, end: eol, at, ours, theirs, swap }) => {
        // A fence of unique lines between the two edits: without it "different places" has two readings.
        const half = 2 + (at % (lines.length - 4));
        const fence = ["--- fence 1", "--- fence 2", "--- fence 3"];
        const [head, tail] = [lines.slice(0, half), lines.slice(half)];
        const build = (first: string[], second: string[]) =>
          [...first, ...fence, ...second].map((text) => text + eol).join("");
        const [top, bottom] = swap ? [theirs, ours] : [ours, theirs];
        const editedHead = [...head.slice(0, 1), ...top, ...head.slice(2)];
        const editedTail = [...tail.slice(0, -1), ...bottom];
        const base = build(head, tail);
        const changedHead = build(editedHead, tail);
        const changedTail = build(head, editedTail);
        const result = swap ? merge(base, changedTail, changedHead) : merge(base, changedHead, changedTail);
        expect(result).toEqual({ clean: true, text: build(editedHead, editedTail) });
      }),
      { numRuns: 1000 },
    );
  });

  it("a side that changed nothing never matters", () => {
    const text = fc.array(fc.constantFrom("a", "b", "c", "a\n", "b\n", "\n", "x\r\n"), { maxLength: 30 });
    fc.assert(
      fc.property(text, text, (from, to) => {
        const [base, edited] = [from.join(""), to.join("")];
        expect(merge(base, edited, base)).toEqual({ clean: true, text: edited });
        expect(merge(base, base, edited)).toEqual({ clean: true, text: edited });
        expect(merge(base, edited, edited)).toEqual({ clean: true, text: edited });
      }),
      { numRuns: 2000 },
    );
  });

  it("a text of thousands of equal lines cannot hold up the server", { timeout: 300_000 }, () => {
    const equal = (count: number, odd: string) => "same\n".repeat(count) + odd;
    const [base, ours, theirs] = [
      equal(200_000, "a\n"),
      `first\n${equal(199_990, "b\n")}`,
      equal(200_007, "c\n"),
    ];
    // Compared to the end it would take hours; cut short, the rest is a conflict.
    const result = within(120_000, () => merge(base, ours, theirs));
    expect(result.clean).toBe(false);
  });

  it("two edits of a text of 200,000 lines merge without comparing every line with every other", {
    timeout: 300_000,
  }, () => {
    const lines = Array.from({ length: 200_000 }, (_, index) => `line ${index % 50_000}`);
    const edit = (at: number, text: string) => lines.with(at, text).join("\n");
    const base = lines.map((line, index) => (index % 4 === 0 ? `${line} ${index}` : line));
    const [ours, theirs] = [base.with(10, "ours"), base.with(199_000, "theirs")];
    const result = within(120_000, () => merge(base.join("\n"), ours.join("\n"), theirs.join("\n")));
    expect(result).toEqual({ clean: true, text: base.with(10, "ours").with(199_000, "theirs").join("\n") });
    const repeating = within(120_000, () => merge(lines.join("\n"), edit(5, "x"), edit(199_999, "y")));
    expect(repeating.text.length).toBeGreaterThan(0);
  });
});

describe("mergeText against git merge-file", () => {
  let directory = "";
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), "cds-merge-"));
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  const gitMerge = (base: string, ours: string, theirs: string) => {
    const paths = { base, ours, theirs };
    for (const [name, text] of Object.entries(paths)) writeFileSync(join(directory, name), text);
    const git = spawnSync("git", ["merge-file", "-p", "ours", "base", "theirs"], { cwd: directory });
    if (git.status === null || git.status < 0 || git.status > 127) throw new Error(git.stderr.toString());
    return { clean: git.status === 0, text: git.stdout.toString() };
  };

  it("where both merge cleanly, the results are the same bytes", { timeout: 300_000 }, () => {
    const edit = fc.record({ at: fc.nat(), remove: fc.nat({ max: 2 }), insert: fc.nat({ max: 3 }) });
    const cases = fc.record({
      length: fc.integer({ min: 0, max: 40 }),
      ours: fc.array(edit, { maxLength: 4 }),
      theirs: fc.array(edit, { maxLength: 4 }),
      final: fc.tuple(fc.boolean(), fc.boolean()),
    });
    let compared = 0;
    fc.assert(
      fc.property(cases, ({ length, ours, theirs, final }) => {
        const base = Array.from({ length }, (_, index) => `line ${index}`);
        const apply = (edits: typeof ours, name: string) => {
          const lines = [...base];
          edits.forEach(({ at, remove, insert }, index) => {
            const added = Array.from({ length: insert }, (_, count) => `${name} ${index}.${count}`);
            lines.splice(at % (lines.length + 1), remove, ...added);
          });
          return lines;
        };
        const text = (lines: string[], ended: boolean) =>
          lines.join("\n") + (ended && lines.length > 0 ? "\n" : "");
        const [o, a, b] = [
          text(base, true),
          text(apply(ours, "ours"), final[0]),
          text(apply(theirs, "theirs"), final[1]),
        ];
        const [mine, gits] = [merge(o, a, b), gitMerge(o, a, b)];
        if (!mine.clean || !gits.clean) return;
        compared += 1;
        expect(mine.text).toBe(gits.text);
      }),
      { numRuns: 400 },
    );
    expect(compared).toBeGreaterThan(80);
  });
});
