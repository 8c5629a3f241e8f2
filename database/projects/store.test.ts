import fc from "fast-check";
import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { makeOwner, QUOTA, refusalOf, TestProject } from "#tests/support/projects.ts";
import {
  bytes,
  collectBlobs,
  copyPath,
  createProject,
  deletePath,
  deleteProject,
  getOwnProject,
  hashContent,
  listDirectory,
  listProjects,
  listRevisions,
  makeDirectory,
  movePath,
  putBlobs,
  readBlobs,
  readTree,
  renameProject,
  rollbackProject,
} from "./index.ts";

let test: TestDatabase;
beforeAll(async () => {
  test = await testDatabase();
});
afterAll(() => test?.[Symbol.asyncDispose]());
const make = (files?: Record<string, string>) => TestProject.make(test.database, files);

describe("projects", () => {
  it("[GW-3] are made, found by their owner only, renamed and deleted", async () => {
    const { db } = test.database;
    const owner_id = await makeOwner(test.database);
    const stranger = await makeOwner(test.database);
    const files = [{ path: "README.md", content: Buffer.from("# Hi\n") }];
    const start = { author: "ada", summary: "Start", files };
    const project = await createProject(test.database, { owner_id, name: "Sample", quota: QUOTA, start });
    expect(project).toMatchObject({ name: "Sample", head_revision: 1, file_count: 1, size_bytes: 5 });
    expect(await getOwnProject(db, project.id, owner_id)).toMatchObject({ id: project.id });
    expect(await refusalOf(getOwnProject(db, project.id, stranger))).toMatchObject({ code: "NotFound" });
    expect(await renameProject(db, project.id, "Rathaus")).toMatchObject({ name: "Rathaus" });
    await deleteProject(db, project.id);
    expect(await refusalOf(deleteProject(db, project.id))).toMatchObject({ code: "NotFound" });
    expect(await refusalOf(renameProject(db, project.id, "x"))).toMatchObject({ code: "NotFound" });
    expect(await listRevisions(db, { project_id: project.id, limit: 5 })).toEqual([]);
  });

  it("[DB-6] are listed in pages, newest first, each once", async () => {
    const owner_id = await makeOwner(test.database);
    const made: string[] = [];
    for (let i = 0; i < 7; i++) {
      made.push((await createProject(test.database, { owner_id, name: `${i}`, quota: QUOTA })).id);
    }
    const seen: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await listProjects(test.database.db, { owner_id, cursor, limit: 3 });
      seen.push(...page.projects.map(({ id }) => id));
      cursor = page.next_cursor;
    } while (cursor !== undefined);
    expect(seen).toEqual(made.reverse());
    expect(
      await refusalOf(listProjects(test.database.db, { owner_id, cursor: "bad", limit: 3 })),
    ).toMatchObject({
      code: "InvalidParams",
    });
  });

  it("a user has so many at most, also when two are made at once", async () => {
    const owner_id = await makeOwner(test.database);
    const quota = { ...QUOTA, userProjects: 2 };
    const one = () => createProject(test.database, { owner_id, name: "x", quota });
    const results = await Promise.allSettled([one(), one(), one(), one()]);
    expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(2);
    expect(await refusalOf(one())).toMatchObject({
      code: "QuotaExceeded",
      details: { quota: "user_projects", limit: 2, actual: 3 },
    });
  });

  it("sizes read well", () => {
    expect([0, 1023, 1024, 1536, 10 * 1024 ** 2, 5000 * 1024 ** 4].map(bytes)).toEqual([
      "0 bytes",
      "1023 bytes",
      "1 KiB",
      "1.5 KiB",
      "10 MiB",
      "5000 TiB",
    ]);
  });
});

describe("fs", () => {
  const operation = (project: TestProject) => ({ project_id: project.id, author: "ada", quota: QUOTA });

  it("[SB-fs] lists a directory: directories first with the sum of what they hold, at any revision", async () => {
    const project = await make({
      "a.txt": "1",
      "src/b.txt": "22",
      "src/lib/ü/c.txt": "333",
      "src-2.txt": "4444",
    });
    await project.commit({ "src/lib/ü/c.txt": null, "src/new.txt": "n" });
    const list = (path: string, revision?: number) =>
      listDirectory(test.database.db, project.id, path, revision);
    expect(await list(".")).toEqual({
      revision: 2,
      entries: [
        { name: "src", type: "directory", size: 3 },
        { name: "a.txt", type: "file", size: 1 },
        { name: "src-2.txt", type: "file", size: 4 },
      ],
    });
    expect((await list("src/", 1)).entries).toEqual([
      { name: "lib", type: "directory", size: 3 },
      { name: "b.txt", type: "file", size: 2 },
    ]);
    expect(await list("src/lib/u\u0308", 1)).toEqual({
      revision: 1,
      entries: [{ name: "c.txt", type: "file", size: 3 }],
    });
    expect(await list("", 0)).toEqual({ revision: 0, entries: [] });
    for (const [path, revision] of [["src/lib"], ["a.txt"], ["none"], ["src", 3]] as const) {
      expect(await refusalOf(list(path, revision))).toMatchObject({ code: "NotFound" });
    }
    expect(await refusalOf(listDirectory(test.database.db, "prj_none", "."))).toMatchObject({
      code: "NotFound",
    });
    expect(await refusalOf(list("../x"))).toMatchObject({ code: "InvalidParams" });
  });

  it("[SB-fs] deletes, moves and copies files and whole directories, each as one revision", async () => {
    const project = await make({ "a/1": "1", "a/b/2": "2", "a-b": "3" });
    const run = operation(project);
    expect(await movePath(test.database, { ...run, src: "a", dest: "x/y" })).toEqual({ revision: 2 });
    expect(await project.files()).toEqual({ "a-b": "3", "x/y/1": "1", "x/y/b/2": "2" });
    expect(await copyPath(test.database, { ...run, src: "x/y/b", dest: "c" })).toEqual({ revision: 3 });
    expect(await copyPath(test.database, { ...run, src: "a-b", dest: "a/b" })).toEqual({ revision: 4 });
    expect(await deletePath(test.database, { ...run, path: "x/" })).toEqual({ revision: 5 });
    expect(await project.files()).toEqual({ "a-b": "3", "a/b": "3", "c/2": "2" });
    expect(await deletePath(test.database, { ...run, path: "c/2" })).toEqual({ revision: 6 });
    expect(await makeDirectory(test.database, { ...run, path: "neu" })).toEqual({ revision: 7 });
    expect(await project.files()).toEqual({ "a-b": "3", "a/b": "3", "neu/.gitkeep": "" });
  });

  it("[SB-fs] refuses what is not there, stands in the way or leads into itself; nothing changes", async () => {
    const project = await make({ "a/1": "1", b: "2" });
    const run = operation(project);
    const refused = async (work: Promise<unknown>) => (await refusalOf(work)).code;
    expect(await refused(deletePath(test.database, { ...run, path: "none" }))).toBe("NotFound");
    expect(await refused(movePath(test.database, { ...run, src: "none", dest: "x" }))).toBe("NotFound");
    expect(await refused(movePath(test.database, { ...run, src: "a", dest: "b" }))).toBe("Conflict");
    expect(await refused(copyPath(test.database, { ...run, src: "b", dest: "a" }))).toBe("Conflict");
    expect(await refused(copyPath(test.database, { ...run, src: "b", dest: "b" }))).toBe("Conflict");
    expect(await refused(movePath(test.database, { ...run, src: "a", dest: "a/c" }))).toBe("InvalidParams");
    expect(await refused(movePath(test.database, { ...run, src: "a", dest: "b/c" }))).toBe("Conflict");
    expect(await refused(makeDirectory(test.database, { ...run, path: "b" }))).toBe("Conflict");
    expect(await refused(makeDirectory(test.database, { ...run, path: "a" }))).toBe("Conflict");
    expect(await refused(makeDirectory(test.database, { ...run, path: "b/c" }))).toBe("Conflict");
    expect(await refused(copyPath(test.database, { ...run, src: "b", dest: "../b" }))).toBe("InvalidParams");
    expect(await project.head()).toMatchObject({ revision: 1 });
  });
});

describe("rollbackProject", () => {
  const rollback = (project: TestProject, revision: number) =>
    rollbackProject(test.database, { project_id: project.id, revision, author: "ada", quota: QUOTA });

  it("[GW-3] whatever happened, the new revision's tree equals the old one's", async () => {
    const project = await make();
    const step = fc.dictionary(
      fc.constantFrom("a", "b", "d/e", "d/f"),
      fc.option(fc.constantFrom("1", "2", "3"), { nil: null }),
      { minKeys: 1 },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 3 }), fc.nat(), async (steps, pick) => {
        for (const files of steps) await project.commit(files);
        const { revision: head } = await project.head();
        const target = pick % (head + 1);
        const wanted = await readTree(test.database.db, project.id, target);
        expect(await rollback(project, target)).toEqual({ revision: head + 1 });
        const tree = await readTree(test.database.db, project.id);
        const bare = (files: typeof tree) => files.map(({ revision: _, ...file }) => file);
        expect(bare(tree)).toEqual(bare(wanted));
        expect(bare(await readTree(test.database.db, project.id, head + 1))).toEqual(bare(wanted));
        expect(await project.head()).toMatchObject({ files: tree.length });
      }),
      { numRuns: 40 },
    );
  });

  it("goes back to nothing, and not to what never was", async () => {
    const project = await make({ a: "1" });
    expect(await rollback(project, 0)).toEqual({ revision: 2 });
    expect(await project.files()).toEqual({});
    expect(await refusalOf(rollback(project, 3))).toMatchObject({ code: "NotFound" });
    const [last] = await listRevisions(test.database.db, { project_id: project.id, limit: 1 });
    expect(last).toMatchObject({ kind: "rollback", summary: "Back to revision 0" });
  });
});

describe("blobs", () => {
  it("are stored once, whoever brings them, and read back", async () => {
    const { db } = test.database;
    const contents = ["x", "", "ü\0", "x"].map((text) => Buffer.from(`blob ${text}`));
    const [first, ...again] = await Promise.all([1, 2, 3, 4].map(() => putBlobs(db, contents)));
    for (const hashes of again) expect(hashes).toEqual(first);
    expect(first).toEqual(contents.map(hashContent));
    const found = await readBlobs(db, [...(first ?? []), Buffer.alloc(32)]);
    expect(found.size).toBe(3);
    expect(found.get(hashContent(Buffer.from("blob x")).toString("hex"))?.toString()).toBe("blob x");
    expect(await putBlobs(db, [])).toEqual([]);
    expect(await readBlobs(db, [])).toEqual(new Map());
  });

  it("unreferenced ones are removed after an hour, referenced or fresh ones never", async () => {
    const { db } = test.database;
    const project = await make({ now: "referenced now" });
    await project.commit({ now: "then" });
    await project.propose({ now: "proposed" }, 2);
    const loose = ["loose", "touched again"].map((text) => Buffer.from(text));
    const [hash, touched] = await putBlobs(db, loose);
    const age = sql`UPDATE blobs SET touched_at = now() - interval '61 minutes'`;
    await collectBlobs(db);
    const before = (await db.selectFrom("blobs").select("hash").execute()).length;
    expect(await collectBlobs(db)).toBe(0);
    await age.execute(db);
    await putBlobs(db, loose.slice(1));
    // One at a time, until only what is needed is left.
    let removed = 0;
    for (let count = await collectBlobs(db, 1); count > 0; count = await collectBlobs(db, 1))
      removed += count;
    expect(removed).toBeGreaterThan(0);
    const left = new Set(
      (await db.selectFrom("blobs").select("hash").execute()).map((row) => row.hash.toString("hex")),
    );
    expect(left.size).toBe(before - removed);
    expect(left.has(hash?.toString("hex") ?? "")).toBe(false);
    expect(left.has(touched?.toString("hex") ?? "")).toBe(true);
    for (const text of ["referenced now", "then", "proposed"]) {
      expect(left.has(hashContent(Buffer.from(text)).toString("hex"))).toBe(true);
    }
  });

  it("removing and storing the same contents at once loses none", async () => {
    const { db } = test.database;
    const project = await make();
    const contents = Array.from({ length: 20 }, (_, i) => `racing ${i}`);
    for (let round = 0; round < 5; round++) {
      await putBlobs(
        db,
        contents.map((text) => Buffer.from(text)),
      );
      await sql`UPDATE blobs SET touched_at = now() - interval '2 hours'`.execute(db);
      const files = Object.fromEntries(contents.map((text, i) => [`${round}/${i}`, text]));
      await Promise.all([collectBlobs(db), project.commit(files), collectBlobs(db), collectBlobs(db)]);
    }
    expect(Object.values(await project.files()).sort()).toEqual(
      contents.flatMap((text) => Array(5).fill(text)).sort(),
    );
  });
});
