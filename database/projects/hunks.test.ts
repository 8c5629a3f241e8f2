import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { makeOwner, QUOTA, refusalOf, TestProject } from "#tests/support/projects.ts";
import { within } from "#tests/support/within.ts";
import { applyHunks, type Choice, hunksOf, MAX_DIVIDED_FILES, MAX_HUNKS } from "./hunks.ts";
import { acceptChange, getChange, previewChange, putBlobs, readTree } from "./index.ts";

let test: TestDatabase;
let owner: string;
beforeAll(async () => {
  test = await testDatabase();
  owner = await makeOwner(test.database);
});
afterAll(() => test?.[Symbol.asyncDispose]());

const accept = (change_id: string, hunks?: readonly Choice[], more: object = {}) =>
  acceptChange(test.database, { change_id, decided_by: "usr_ada", hunks, quota: QUOTA, ...more });
const rows = (count: number) => Array.from({ length: count }, (_, index) => `line ${index}`);
const text = (lines: readonly string[]) => lines.map((line) => `${line}\n`).join("");
const preview = async (id: string) => previewChange(test.database.db, await getChange(test.database.db, id));
/** Which hunks there are now, by path; a file without hunks has none to choose from. */
const choicesOf = async (id: string): Promise<{ path: string; count: number }[]> => {
  const { files } = await preview(id);
  return Promise.all(
    files.map(async ({ path, before, after }) => {
      if (before === null || after === null) return { path, count: 0 };
      const [old, next] = await Promise.all([before, after].map((version) => contentOf(version.blob_hash)));
      return { path, count: hunksOf(old ?? "", next ?? "").length };
    }),
  );
};
const contentOf = async (hash: Buffer) => {
  const row = await test.database.db
    .selectFrom("blobs")
    .select("content")
    .where("hash", "=", hash)
    .executeTakeFirstOrThrow();
  return row.content.toString();
};

describe("hunks", () => {
  it("tell where lines were replaced, removed and put in", () => {
    const before = "a\nb\nc\nd\ne\n";
    expect(hunksOf(before, "A\nb\nd\ne\nf\n")).toEqual([
      { index: 0, old_start: 1, old_lines: 1, new_start: 1, new_lines: 1 },
      { index: 1, old_start: 3, old_lines: 1, new_start: 3, new_lines: 0 },
      { index: 2, old_start: 6, old_lines: 0, new_start: 5, new_lines: 1 },
    ]);
    expect(hunksOf(before, before)).toEqual([]);
    expect(hunksOf("a", "a\n")).toEqual([
      { index: 0, old_start: 1, old_lines: 1, new_start: 1, new_lines: 1 },
    ]);
  });

  it("all of them make the new text, none the old one, and each is taken by itself", () => {
    const line = fc.constantFrom("a\n", "b\n", "c\n", "\n", "x\r\n", "end");
    const lines = fc.array(line, { maxLength: 25 }).map((all) => all.join(""));
    fc.assert(
      fc.property(lines, lines, fc.array(fc.nat(20)), (before, after, some) => {
        const all = hunksOf(before, after).map(({ index }) => index);
        expect(applyHunks(before, after, new Set(all))).toBe(after);
        expect(applyHunks(before, after, new Set())).toBe(before);
        // A part, and then what is left of it.
        const between = applyHunks(before, after, new Set(some));
        const rest = hunksOf(between, after).map(({ index }) => index);
        expect(applyHunks(between, after, new Set(rest))).toBe(after);
      }),
      { numRuns: 1000 },
    );
  });

  it("are not without end, nor is looking for them", { timeout: 300_000 }, () => {
    const many = rows(MAX_HUNKS * 4);
    const hunks = hunksOf(text(many), text(many.map((line, index) => (index % 2 === 0 ? `${line}!` : line))));
    expect(hunks).toHaveLength(MAX_HUNKS);
    expect(hunks.at(-1)).toMatchObject({ old_start: 999, old_lines: 1001 });
    const equal = within(60_000, () =>
      hunksOf(`a\n${"same\n".repeat(90_000)}`, `${"same\n".repeat(80_000)}b\n`),
    );
    expect(equal).toHaveLength(1);
  });
});

describe("accepting a part", () => {
  it("[AG-2] makes the chosen hunks a revision, and keeps the rest as a change on it", async () => {
    const project = await TestProject.make(test.database, { "a.txt": text(rows(9)), "b.txt": "b\n" }, owner);
    const full = text(rows(9).with(0, "one").with(4, "two").with(8, "three"));
    const id = await project.propose({ "a.txt": full, "b.txt": null, "c.txt": "c\n" }, 1, {
      task_id: "tsk_1",
    });
    const { revision, remaining_change_id: rest = "" } = await accept(id, [
      { path: "./a.txt", indexes: [1] },
    ]);
    expect(revision).toBe(2);
    expect(await project.files()).toEqual({ "a.txt": text(rows(9).with(4, "two")), "b.txt": "b\n" });
    expect(await accept(id)).toEqual({ revision: 2, remaining_change_id: rest });
    // What was accepted is what the change now says.
    const accepted = await preview(id);
    expect(accepted.files.map(({ path }) => path)).toEqual(["a.txt"]);
    expect(await getChange(test.database.db, rest)).toMatchObject({
      state: "proposed",
      base_revision: 2,
      author: "CodeAgent",
      summary: "Proposal",
      task_id: "tsk_1",
      rest_of: id,
    });
    expect(await choicesOf(rest)).toEqual([
      { path: "a.txt", count: 2 },
      { path: "b.txt", count: 0 },
      { path: "c.txt", count: 0 },
    ]);
    const last = await accept(rest, [{ path: "c.txt" }, { path: "b.txt" }]);
    expect(await project.files()).toEqual({ "a.txt": text(rows(9).with(4, "two")), "c.txt": "c\n" });
    expect(await accept(last.remaining_change_id ?? "")).toEqual({ revision: 4 });
    expect(await project.files()).toEqual({ "a.txt": full, "c.txt": "c\n" });
  });

  it("all hunks are the whole, and leave nothing", async () => {
    const project = await TestProject.make(test.database, { "a.txt": text(rows(5)) }, owner);
    const id = await project.propose({ "a.txt": text(rows(5).with(0, "x").with(4, "y")) }, 1);
    expect(await accept(id, [{ path: "a.txt", indexes: [0, 1, 1] }])).toEqual({ revision: 2 });
    const again = await project.propose({ "a.txt": "new\n" }, 2);
    expect(await accept(again, [{ path: "a.txt" }])).toEqual({ revision: 3 });
  });

  it("[AG-2] in any order ends in the same tree as accepting all at once", { timeout: 600_000 }, async () => {
    const line = fc.constantFrom("a", "b", "c", "", "}");
    const lines = fc.array(line, { minLength: 1, maxLength: 14 }).map(text);
    const files = fc.record({ "a.txt": lines, "b.txt": lines, "d/c.txt": lines });
    const changed = fc.record({
      "a.txt": lines,
      "b.txt": fc.option(lines, { nil: null }),
      "d/c.txt": lines,
      "new.txt": lines,
    });
    const order = fc.array(fc.nat(), { minLength: 4, maxLength: 12 });
    await fc.assert(
      fc.asyncProperty(files, changed, order, fc.boolean(), async (base, target, picks, isMoving) => {
        const project = await TestProject.make(test.database, base);
        let id: string | undefined = await project.propose(target, 1);
        const wanted = Object.fromEntries(Object.entries(target).filter(([, content]) => content !== null));
        for (const pick of picks) {
          if (id === undefined) break;
          const choices = await choicesOf(id);
          const { path, count } = choices[pick % choices.length] ?? { path: "", count: 0 };
          const choice = count === 0 ? { path } : { path, indexes: [pick % count] };
          // Somebody else works on other files meanwhile.
          if (isMoving) await project.commit({ "other.txt": `${pick}` });
          id = (await accept(id, [choice])).remaining_change_id;
        }
        if (id !== undefined) expect(await accept(id)).not.toHaveProperty("remaining_change_id");
        const { "other.txt": _, ...present } = await project.files();
        expect(present).toEqual(wanted);
      }),
      { numRuns: 60, seed: 7 },
    );
  });

  it("[AG-2] beside somebody else's edits of the same file ends as accepting all at once does", async () => {
    const place = fc.uniqueArray(fc.nat(9), { minLength: 1, maxLength: 5 });
    await fc.assert(
      fc.asyncProperty(
        place,
        place,
        fc.array(fc.nat(), { minLength: 2, maxLength: 6 }),
        async (ours, theirs, picks) => {
          // Every third line is one side's or the other's; so no edits lie next to each other.
          const base = rows(60);
          const edit = (lines: string[], at: readonly number[], shift: number, who: string) =>
            at.reduce((all, one) => all.with(one * 6 + shift, `${who} ${one}`), lines);
          const whole = text(edit(edit(base, ours, 0, "ours"), theirs, 3, "theirs"));
          const project = await TestProject.make(test.database, { "a.txt": text(base) });
          let id: string | undefined = await project.propose(
            { "a.txt": text(edit(base, theirs, 3, "theirs")) },
            1,
          );
          await project.commit({ "a.txt": text(edit(base, ours, 0, "ours")) });
          for (const pick of picks) {
            if (id === undefined) break;
            const [{ count } = { count: 1 }] = await choicesOf(id);
            id = (await accept(id, [{ path: "a.txt", indexes: [pick % count] }])).remaining_change_id;
          }
          if (id !== undefined) await accept(id);
          expect(await project.files()).toEqual({ "a.txt": whole });
        },
      ),
      { numRuns: 25, seed: 7 },
    );
  });

  it("[AG-2] what collides in the rest is seen when the rest is looked at; nothing is lost", async () => {
    const project = await TestProject.make(test.database, { "a.txt": text(rows(9)), "b.txt": "b\n" }, owner);
    const id = await project.propose(
      { "a.txt": text(rows(9).with(0, "theirs").with(8, "theirs too")), "b.txt": "theirs\n", "c.txt": "c\n" },
      1,
    );
    await project.commit({ "a.txt": text(rows(9).with(0, "ours")), "b.txt": "ours\n" });
    expect(await refusalOf(accept(id, [{ path: "a.txt", indexes: [0] }]))).toMatchObject({
      details: { conflicts: [{ path: "a.txt" }] },
    });
    const { remaining_change_id: rest = "" } = await accept(id, [{ path: "a.txt", indexes: [1] }]);
    expect((await preview(rest)).conflicts.map(({ path, kind }) => [path, kind])).toEqual([
      ["a.txt", "content"],
      ["b.txt", "content"],
    ]);
    const resolutions = [
      { path: "a.txt", content: Buffer.from("both\n") },
      { path: "b.txt", content: Buffer.from("both\n") },
    ];
    await accept(rest, undefined, { resolutions });
    expect(await project.files()).toEqual({ "a.txt": "both\n", "b.txt": "both\n", "c.txt": "c\n" });
  });

  it("what the project has already is not left over", async () => {
    const project = await TestProject.make(test.database, { "a.txt": "a\n", "b.txt": "b\n" }, owner);
    const id = await project.propose({ "a.txt": "A\n", "b.txt": "B\n" }, 1);
    await project.commit({ "b.txt": "B\n" });
    expect(await accept(id, [{ path: "a.txt" }])).toEqual({ revision: 3 });
    expect(await project.files()).toEqual({ "a.txt": "A\n", "b.txt": "B\n" });
  });

  it("[AG-2] follows files that were moved, in the part taken and in the rest", async () => {
    const project = await TestProject.make(test.database, { "a.txt": text(rows(20)) }, owner);
    const full = rows(20).with(1, "one").with(18, "two");
    const id = await project.propose({ "a.txt": text(full) }, 1);
    await project.commit({ "a.txt": null, "d/b.txt": text(rows(20).with(9, "ours")) });
    const { remaining_change_id: rest = "" } = await accept(id, [{ path: "a.txt", indexes: [0] }]);
    expect(await choicesOf(rest)).toEqual([{ path: "d/b.txt", count: 1 }]);
    await accept(rest);
    expect(await project.files()).toEqual({ "d/b.txt": text(full.with(9, "ours")) });
  });

  it("the executable bit comes with the first part, and with a file as a whole", async () => {
    const project = await TestProject.make(test.database, { "x.sh": text(rows(9)), "y.sh": "y\n" }, owner);
    const [full = null] = await putBlobs(test.database.db, [
      Buffer.from(text(rows(9).with(0, "x").with(8, "y"))),
    ]);
    const base = new Map((await readTree(test.database.db, project.id)).map((file) => [file.path, file]));
    const y = base.get("y.sh")?.blob_hash ?? null;
    const id = await project.propose({}, 1, {
      files: [
        { path: "x.sh", base_hash: base.get("x.sh")?.blob_hash ?? null, new_hash: full, executable: true },
        { path: "y.sh", base_hash: y, new_hash: y, executable: true },
      ],
    });
    const bits = async () =>
      (await readTree(test.database.db, project.id)).flatMap((file) => (file.executable ? [file.path] : []));
    const first = await accept(id, [{ path: "x.sh", indexes: [1] }]);
    expect(await bits()).toEqual(["x.sh"]);
    await accept(first.remaining_change_id ?? "");
    expect(await bits()).toEqual(["x.sh", "y.sh"]);
  });

  it("refuses what the change does not have, and changes nothing", async () => {
    const binary = Buffer.from([0, 1, 2]);
    const project = await TestProject.make(test.database, { "a.txt": text(rows(5)), "x.txt": "x\n" }, owner);
    await project.commit({ bin: binary });
    const id = await project.propose(
      { "a.txt": text(rows(5).with(0, "one")), bin: Buffer.from([0, 9]), "x.txt": null, "n.txt": "n\n" },
      2,
    );
    const refused: Choice[][] = [
      [{ path: "other.txt" }],
      [{ path: "a.txt" }, { path: "./a.txt", indexes: [0] }],
      [{ path: "a.txt", indexes: [1] }],
      [{ path: "bin", indexes: [0] }],
      [{ path: "x.txt", indexes: [0] }],
      [{ path: "n.txt", indexes: [0] }],
      [{ path: "../a.txt" }],
    ];
    for (const hunks of refused) {
      expect(await refusalOf(accept(id, hunks))).toMatchObject({ code: "InvalidParams" });
    }
    expect(await project.head()).toMatchObject({ revision: 2 });
    await accept(id, [{ path: "bin" }]);
    expect(await project.head()).toMatchObject({ revision: 3 });
    const files = Object.fromEntries(
      Array.from({ length: MAX_DIVIDED_FILES + 1 }, (_, at) => [`f${at}`, "1\n"]),
    );
    const wide = await TestProject.make(test.database, files, owner);
    const all = Object.keys(files);
    const change = await wide.propose(Object.fromEntries(all.map((path) => [path, "2\n"])), 1);
    const tooMany = all.map((path) => ({ path, indexes: [0] }));
    expect(await refusalOf(accept(change, tooMany))).toMatchObject({ code: "InvalidParams" });
    expect(
      await accept(
        change,
        all.map((path) => ({ path })),
      ),
    ).toEqual({ revision: 2 });
  });
});
