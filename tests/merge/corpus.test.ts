import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { makeOwner } from "#tests/support/projects.ts";
import { CORPUS } from "./corpus.ts";
import { Git } from "./git.ts";
import { mergeInStore } from "./store.ts";
import { Tally } from "./tally.ts";
import { edited, lostLines, shown, type Tree } from "./trees.ts";

let test: TestDatabase;
let git: Git;
let owner: string;
const tally = new Tally();
beforeAll(async () => {
  test = await testDatabase();
  git = new Git();
});
afterAll(async () => {
  git?.[Symbol.dispose]();
  tally.print("Merge corpus");
  await test?.[Symbol.asyncDispose]();
});

const NOTHING: Tree = new Map();

describe("merge corpus", () => {
  it.each(CORPUS.map((pair) => [pair.name, pair] as const))("[AG-2] %s", async (name, pair) => {
    // An owner each: the huge ones would use up what one user may have.
    owner = await makeOwner(test.database);
    const base = edited(NOTHING, pair.base);
    const [ours, theirs] = [edited(base, pair.ours), edited(base, pair.theirs)];
    const gits = git.merge(base, ours, theirs);
    const mine = await mergeInStore(test.database, { base, ours, theirs }, owner);
    tally.add(name, mine, gits, pair.differs);
    expect(lostLines(base, ours, theirs, mine.kept)).toEqual([]);
    if (mine.result !== null) expect(lostLines(base, ours, theirs, mine.result)).toEqual([]);
    // What is not as git does it has a reason that stands in the corpus; and a reason that is none any more has gone.
    const isSame = JSON.stringify(shownOrNull(mine.result)) === JSON.stringify(shownOrNull(gits));
    if (pair.differs !== undefined) expect(isSame).toBe(false);
    else expect(shownOrNull(mine.result)).toEqual(shownOrNull(gits));
  });
});

function shownOrNull(tree: Tree | null): Record<string, string> | null {
  return tree === null ? null : shown(tree);
}
