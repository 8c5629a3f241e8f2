import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { mergeText } from "#database/projects/merge-text.ts";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { makeOwner } from "#tests/support/projects.ts";
import { Git } from "./git.ts";
import { mergeInStore } from "./store.ts";
import { Tally } from "./tally.ts";
import { executable, type File, lostLines, shown, type Tree } from "./trees.ts";

const SEED = 20_261_128;
const PAIRS = 200;

let test: TestDatabase;
let git: Git;
beforeAll(async () => {
  test = await testDatabase();
  git = new Git();
});
afterAll(async () => {
  git?.[Symbol.dispose]();
  await test?.[Symbol.asyncDispose]();
});

/** One thing somebody does to a tree; the numbers choose among what there is. */
const step = fc.record({
  what: fc.constantFrom("edit", "edit", "edit", "move", "move", "moveDirectory", "add", "delete", "bit"),
  file: fc.nat(),
  place: fc.nat(),
  line: fc.nat(),
});
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

const PLACES = ["a/", "b/", "a/deep/", "c/", ""];
const NAMES = ["one.txt", "two.txt", "three.txt"];

function startTree(): Tree {
  const tree = new Map<string, File>();
  for (const place of PLACES.slice(0, 3)) {
    for (const name of NAMES) tree.set(`${place}${name}`, textFile(`${place}${name}`, 14));
  }
  return tree;
}

function textFile(name: string, count: number): File {
  const lines = Array.from({ length: count }, (_, index) => `${name} has line ${index}\n`);
  return { content: Buffer.from(lines.join("")), executable: false };
}

/** What a person makes of a tree: every line they write bears their name and is written once. */
function work(start: Tree, steps: readonly Step[], who: string): Tree {
  const tree = new Map(start);
  steps.forEach((one, index) => {
    const paths = [...tree.keys()].sort();
    const path = paths[one.file % paths.length];
    const file = path === undefined ? undefined : tree.get(path);
    if (path === undefined || file === undefined) return;
    if (one.what === "edit") tree.set(path, editedFile(file, one.line, `${who} wrote ${index}`));
    if (one.what === "bit") tree.set(path, executable(file.content.toString()));
    if (one.what === "add") tree.set(`${place(one)}${who}-${index}.txt`, textFile(`${who}'s ${index}`, 6));
    if (one.what === "delete") tree.delete(path);
    const name = NAMES[one.line % NAMES.length] ?? "";
    if (one.what === "move") moveFile(tree, path, `${place(one)}${name}`);
    if (one.what === "moveDirectory") {
      const from = PLACES[one.file % (PLACES.length - 1)] ?? "";
      for (const inside of paths) {
        if (inside.startsWith(from))
          moveFile(tree, inside, `${place(one)}moved/${inside.slice(from.length)}`);
      }
    }
  });
  return tree;
}

const place = ({ place: at }: Step) => PLACES[at % PLACES.length] ?? "";

function moveFile(tree: Map<string, File>, from: string, to: string): void {
  const file = tree.get(from);
  if (file === undefined || tree.has(to)) return;
  tree.delete(from);
  tree.set(to, file);
}

/** One line replaced, removed or put before, in turn. */
function editedFile({ content, executable: bit }: File, at: number, line: string): File {
  const lines = content.toString().split("\n").slice(0, -1);
  const where = at % Math.max(lines.length, 1);
  const kind = at % 3;
  lines.splice(where, kind === 2 ? 0 : 1, ...(kind === 1 ? [] : [line]));
  return { content: Buffer.from(lines.map((text) => `${text}\n`).join("")), executable: bit };
}

describe("merges of random changes", () => {
  it("[AG-2] lose no line, and are git's where git has no conflict", { timeout: 900_000 }, async () => {
    const tally = new Tally();
    const steps = fc.array(step, { minLength: 1, maxLength: 5 });
    const other: string[] = [];
    // A new directory inside one that was moved: git leaves it behind, here it goes along (the corpus says so, too).
    let elsewhere = 0;
    await fc.assert(
      fc.asyncProperty(steps, steps, async (mine, yours) => {
        const base = startTree();
        const [ours, theirs] = [work(base, mine, "ours"), work(base, yours, "theirs")];
        const owner = await makeOwner(test.database);
        const merge = await mergeInStore(test.database, { base, ours, theirs }, owner);
        expect(lostLines(base, ours, theirs, merge.kept)).toEqual([]);
        const gits = git.merge(base, ours, theirs);
        tally.add(JSON.stringify([mine, yours]), merge, gits);
        if (gits === null) return;
        const [left, right] = [merge.result, gits].map((tree) => tree && JSON.stringify(shown(tree)));
        if (left === right) return;
        const [inOurs, inGits] = [merge.result, gits].map(
          (tree) => tree && Object.values(shown(tree)).sort(),
        );
        if (JSON.stringify(inOurs) === JSON.stringify(inGits)) elsewhere += 1;
        else other.push(JSON.stringify({ mine, yours, conflicts: merge.conflicts }));
      }),
      { seed: SEED, numRuns: PAIRS },
    );
    tally.print("Random pairs", false);
    expect(other).toEqual([]);
    expect(elsewhere).toBeLessThan(PAIRS / 50);
    expect(tally.count("merged here, merged by git, same bytes")).toBeGreaterThan(PAIRS / 10);
  });

  it("[AG-2] of one text full of equal lines lose no line either", () => {
    const edits = fc.array(fc.record({ at: fc.nat(), remove: fc.nat(2), insert: fc.nat(2) }), {
      maxLength: 6,
    });
    const lines = fc.array(fc.constantFrom("{", "}", "", "  return;", "end"), { maxLength: 40 });
    const end = fc.constantFrom("\n", "\r\n");
    const made = (
      start: readonly string[],
      changes: readonly { at: number; remove: number; insert: number }[],
      who: string,
    ) => {
      const next = [...start];
      changes.forEach(({ at, remove, insert }, index) => {
        const added = Array.from({ length: insert }, (_, nth) => `${who} ${index}.${nth}`);
        next.splice(at % (next.length + 1), remove, ...added);
      });
      return next;
    };
    const tree = (content: string): Tree =>
      new Map([["a.txt", { content: Buffer.from(content), executable: false }]]);
    fc.assert(
      fc.property(lines, edits, edits, end, end, end, (start, mine, yours, ...ends) => {
        const sides = [start, made(start, mine, "ours"), made(start, yours, "theirs")];
        const [base = "", ours = "", theirs = ""] = sides.map((side, index) =>
          side.map((line) => line + ends[index]).join(""),
        );
        const { text } = mergeText(base, ours, theirs, { ours: "project", theirs: "change" });
        expect(lostLines(tree(base), tree(ours), tree(theirs), tree(text))).toEqual([]);
      }),
      { seed: SEED, numRuns: 2000 },
    );
  });
});
