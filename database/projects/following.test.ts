import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { makeOwner, QUOTA, refusalOf, TestProject } from "#tests/support/projects.ts";
import { findDirectoryRenames } from "./directory-renames.ts";
import { acceptChange, getChange, hashContent, previewChange, putBlobs } from "./index.ts";
import { findRenames, type PathChange } from "./renames.ts";

let test: TestDatabase;
let owner: string;
beforeAll(async () => {
  test = await testDatabase();
  owner = await makeOwner(test.database);
});
afterAll(() => test?.[Symbol.asyncDispose]());

const make = (files: Record<string, string>) => TestProject.make(test.database, files, owner);
const accept = (change_id: string, resolutions: { path: string; content: Buffer | null }[] = [], more = {}) =>
  acceptChange(test.database, { change_id, decided_by: "usr_ada", resolutions, quota: QUOTA, ...more });
const rows = (count: number, name = "line") =>
  Array.from({ length: count }, (_, index) => `${name} ${index}`);
const text = (lines: readonly string[]) => lines.map((line) => `${line}\n`).join("");
const A = text(rows(12, "alpha"));
const B = text(rows(12, "beta"));

/** What a side did, its contents stored: null stands for no file. */
const sideOf = async (files: Record<string, readonly [before: string | null, after: string | null]>) => {
  const changes: PathChange[] = [];
  for (const [path, sides] of Object.entries(files)) {
    const [before = null, after = null] = sides.map((content) => {
      const bytes = content === null ? null : Buffer.from(content);
      return bytes && { blob_hash: hashContent(bytes), size: bytes.length, executable: false };
    });
    await putBlobs(
      test.database.db,
      sides.flatMap((content) => (content === null ? [] : [Buffer.from(content)])),
    );
    changes.push({ path, before, after });
  }
  return changes;
};
const renamesOf = async (files: Parameters<typeof sideOf>[0]) =>
  Object.fromEntries(await findRenames(test.database.db, await sideOf(files)));

describe("moved files", () => {
  it("are known again unchanged or similar, each once, by name where content does not tell", async () => {
    expect(
      await renamesOf({
        "a.txt": [A, null],
        "b.txt": [B, null],
        "x/b.txt": [null, B],
        "y.txt": [null, A.replace("alpha 3\n", "new\n")],
        "z.txt": [null, "nothing alike\n"],
        "edited.txt": [A, B],
      }),
    ).toEqual({ "a.txt": "y.txt", "b.txt": "x/b.txt" });
    const copies = { "1/a": [A, null], "2/b": [A, null], "n/b": [null, A], "n/a": [null, A] } as const;
    expect(await renamesOf(copies)).toEqual({ "1/a": "n/a", "2/b": "n/b" });
  });

  it("of two similar ones the more similar is it, then the one of the same name", async () => {
    const [near, far] = [A.replace("alpha 3\n", "new\n"), text(rows(12, "alpha").with(1, "x").with(2, "y"))];
    expect(await renamesOf({ "a.txt": [A, null], "far.txt": [null, far], "near.txt": [null, near] })).toEqual(
      {
        "a.txt": "near.txt",
      },
    );
    expect(await renamesOf({ "a.txt": [A, null], "d/x.txt": [null, near], "d/a.txt": [null, near] })).toEqual(
      {
        "a.txt": "d/a.txt",
      },
    );
    // One new file can be one old file only.
    const two = { "a.txt": [A, null], "c.txt": [far, null], "near.txt": [null, near] } as const;
    expect(await renamesOf(two)).toEqual({ "a.txt": "near.txt" });
  });

  it("less than half alike, empty, or too large to compare, are other files", async () => {
    const half = text([...rows(5, "alpha"), ...rows(9, "other")]);
    expect(
      await renamesOf({ "a.txt": [A, null], "b.txt": [null, half], c: ["", null], d: [null, ""] }),
    ).toEqual({});
    const large = text(rows(100_000));
    expect(await renamesOf({ a: [large, null], b: [null, large] })).toEqual({ a: "b" });
    expect(await renamesOf({ a: [large, null], b: [null, `${large}x`] })).toEqual({});
    expect(await renamesOf({ a: [large, null], b: [null, A] })).toEqual({});
  });

  it("are looked for within bounds: where there are too many, only unchanged ones", {
    timeout: 300_000,
  }, async () => {
    const files: Parameters<typeof sideOf>[0] = {};
    for (let at = 0; at < 40; at += 1) {
      const lines = rows(2000, `file ${at}`);
      files[`old/${at}`] = [text(lines), null];
      files[`new/${at}`] = [null, text(at === 39 ? lines : lines.with(5, "edited"))];
    }
    const found = await renamesOf(files);
    expect(found).toMatchObject({ "old/0": "new/0", "old/39": "new/39" });
    expect(Object.keys(found).length).toBeLessThan(40);
    const wide: Parameters<typeof sideOf>[0] = {};
    const block = "x".repeat(900_000);
    for (let at = 0; at < 10; at += 1) {
      wide[`old/${at}`] = [`${at}\n${block}`, null];
      wide[`new/${at}`] = [null, `${at}\n${block}\nmore`];
    }
    expect(Object.keys(await renamesOf(wide)).length).toBeLessThan(10);
  });

  it("say where their directories went, unless they went to two places alike", () => {
    const moved = (pairs: Record<string, string>) =>
      Object.fromEntries(findDirectoryRenames(new Map(Object.entries(pairs))));
    expect(moved({ "a/b/1": "c/b/1", "a/b/2": "c/b/2" })).toEqual({ "a/b": "c/b", a: "c" });
    expect(moved({ "a/1": "1", "a/2": "2" })).toEqual({ a: "" });
    expect(moved({ "a/1": "x/1", "a/2": "y/2" })).toEqual({});
    expect(moved({ "a/1": "x/1", "a/2": "y/2", "a/3": "y/3" })).toEqual({ a: "y" });
    expect(moved({ "a/1": "a/2", "1": "b/1" })).toEqual({});
  });
});

describe("a change and moves", () => {
  it("[AG-2] both moved a file: the answer may keep either place, or both", async () => {
    for (const [resolutions, expected] of [
      [{ "theirs.txt": "both\n" }, { "theirs.txt": "both\n" }],
      [{ "theirs.txt": null, "ours.txt": "both\n" }, { "ours.txt": "both\n" }],
      [
        { "theirs.txt": "t\n", "ours.txt": "o\n" },
        { "theirs.txt": "t\n", "ours.txt": "o\n" },
      ],
    ] as const) {
      const project = await make({ "a.txt": A });
      const id = await project.propose({ "a.txt": null, "theirs.txt": A }, 1);
      await project.commit({ "a.txt": null, "ours.txt": A });
      const { conflicts } = await previewChange(test.database.db, await getChange(test.database.db, id));
      expect(conflicts).toMatchObject([
        {
          path: "theirs.txt",
          kind: "move_move",
          moved_from: "a.txt",
          current: { path: "ours.txt" },
          merged: A,
        },
      ]);
      const answers = Object.entries(resolutions).map(([path, content]) => ({
        path,
        content: content === null ? null : Buffer.from(content),
      }));
      await accept(id, answers);
      expect(await project.files()).toEqual(expected);
    }
  });

  it("[AG-2] a resolution of a moved file does not overwrite what came after it", async () => {
    const project = await make({ "a.txt": A });
    const id = await project.propose({ "a.txt": A.replace("alpha 3", "theirs") }, 1);
    await project.commit({ "a.txt": null, "b.txt": A.replace("alpha 3", "ours") });
    const answer = [{ path: "b.txt", content: Buffer.from("both\n") }];
    await project.commit({ "b.txt": A.replace("alpha 3", "ours again") });
    expect(await refusalOf(accept(id, answer, { current_revision: 2 }))).toMatchObject({ code: "Conflict" });
    expect(await accept(id, answer, { current_revision: 3 })).toEqual({ revision: 4 });
    expect(await project.files()).toEqual({ "b.txt": "both\n" });
  });

  it("[AG-2] a moved binary both sides touched is a conflict with a place to answer at", async () => {
    const bytes = (last: number) => Buffer.from([0, ...Array(300).keys(), last]);
    const project = await make({});
    await project.commit({ a: bytes(1) });
    const id = await project.propose({ a: null, b: bytes(2) }, 1);
    await project.commit({ a: null, c: bytes(3) });
    const { conflicts } = await previewChange(test.database.db, await getChange(test.database.db, id));
    expect(conflicts).toMatchObject([{ path: "b", kind: "move_move", moved_from: "a" }]);
    expect(conflicts[0]).not.toHaveProperty("merged");
  });

  it("[AG-2] a file moved to where the project has another is a conflict of the two, whoever deleted the old one", async () => {
    for (const ours of [
      { "a.txt": null, "n.txt": B },
      { "a.txt": null, "n.txt": B, "m.txt": A },
    ]) {
      const project = await make({ "a.txt": A });
      const id = await project.propose({ "a.txt": null, "n.txt": A }, 1);
      await project.commit(ours);
      const { conflicts } = await previewChange(test.database.db, await getChange(test.database.db, id));
      expect(conflicts).toMatchObject([{ path: "n.txt", kind: "add_add", current: { path: "n.txt" } }]);
      await accept(id, [{ path: "n.txt", content: Buffer.from("both\n") }]);
      const { "a.txt": _, ...rest } = { ...ours, "n.txt": "both\n" };
      expect(await project.files()).toEqual(rest);
    }
  });

  it("of a project where too much has changed are not followed: then it is a conflict", async () => {
    const many = Object.fromEntries(Array.from({ length: 9_990 }, (_, at) => [`many/${at}`, "x"]));
    const project = await make({ "a.txt": A });
    const id = await project.propose({ "a.txt": A.replace("alpha 3", "theirs") }, 1);
    await project.commit({ "a.txt": null, "b.txt": A });
    await project.commit(many);
    const preview = async () => previewChange(test.database.db, await getChange(test.database.db, id));
    expect((await preview()).conflicts).toEqual([]);
    await project.commit(Object.fromEntries(Object.keys(many).map((path) => [path, null])));
    await project.commit(Object.fromEntries(Array.from({ length: 20 }, (_, at) => [`more/${at}`, "x"])));
    expect((await preview()).conflicts).toMatchObject([{ path: "a.txt", kind: "delete_modify" }]);
  });
});
