import fc from "fast-check";
import type { KyselyPlugin } from "kysely";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Database } from "#database";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { QUOTA, refusalOf, TestProject } from "#tests/support/projects.ts";
import { commitEdits, commitImport, listRevisions, putBlobs, readFile, readTree } from "./index.ts";

let test: TestDatabase;
beforeAll(async () => {
  test = await testDatabase();
});
afterAll(() => test?.[Symbol.asyncDispose]());
const make = (files?: Record<string, string>) => TestProject.make(test.database, files);

describe("commitEdits", () => {
  it("[GW-3] writes, changes and deletes files as revisions that count up", async () => {
    const project = await make();
    expect(await project.commit({ "a.txt": "1", "src/b.txt": "22" })).toEqual({ revision: 1, merged: false });
    expect(await project.commit({ "a.txt": "333" })).toEqual({ revision: 2, merged: false });
    expect(await project.commit({ "src/b.txt": null, "c.txt": "" })).toEqual({ revision: 3, merged: false });
    expect(await project.files()).toEqual({ "a.txt": "333", "c.txt": "" });
    expect(await project.head()).toEqual({ revision: 3, files: 2, size: 3 });
    expect(await project.files(2)).toEqual({ "a.txt": "333", "src/b.txt": "22" });
    expect(await project.files(1)).toEqual({ "a.txt": "1", "src/b.txt": "22" });
    expect(await project.files(0)).toEqual({});
    expect(await project.files(3)).toEqual(await project.files());
    const history = await listRevisions(test.database.db, { project_id: project.id, limit: 2 });
    expect(history.map(({ revision, files, author }) => ({ revision, files, author }))).toEqual([
      { revision: 3, files: 2, author: "ada" },
      { revision: 2, files: 1, author: "ada" },
    ]);
    const older = await listRevisions(test.database.db, {
      project_id: project.id,
      before_revision: 2,
      limit: 5,
    });
    expect(older.map(({ revision }) => revision)).toEqual([1]);
  });

  it("content that is the same already makes no revision", async () => {
    const project = await make({ "a.txt": "1" });
    expect(await project.commit({ "a.txt": "1" })).toEqual({ revision: 1, merged: false });
    expect(await project.commit({ "a.txt": "1" }, 1)).toEqual({ revision: 1, merged: false });
    expect(await project.commit({ "never.txt": null })).toEqual({ revision: 1, merged: false });
    expect(await project.commit({})).toEqual({ revision: 1, merged: false });
  });

  it("keeps the executable bit unless told otherwise", async () => {
    const project = await make();
    const who = { project_id: project.id, author: "ada", kind: "edit", summary: "x", quota: QUOTA } as const;
    const run = (content: string, executable?: boolean) =>
      commitEdits(test.database, {
        ...who,
        edits: [
          {
            path: "run.sh",
            content: Buffer.from(content),
            ...(executable === undefined ? {} : { executable }),
          },
        ],
      });
    await run("1", true);
    await run("2");
    expect(await readFile(test.database.db, project.id, "run.sh")).toMatchObject({ executable: true });
    expect(await run("2", false)).toEqual({ revision: 3, merged: false });
    expect(await readFile(test.database.db, project.id, "run.sh")).toMatchObject({ executable: false });
    expect(await readFile(test.database.db, project.id, "run.sh", 2)).toMatchObject({ executable: true });
  });

  it("[GW-3] merges an older base where the edits lie apart, per file", async () => {
    const project = await make({ "a.txt": "1\n2\n3\n", "b.txt": "b\n" });
    await project.commit({ "a.txt": "ONE\n2\n3\n" });
    expect(await project.commit({ "b.txt": "B\n" }, 1)).toEqual({ revision: 3, merged: false });
    expect(await project.commit({ "a.txt": "1\n2\nTHREE\n" }, 1)).toEqual({ revision: 4, merged: true });
    expect(await project.files()).toEqual({ "a.txt": "ONE\n2\nTHREE\n", "b.txt": "B\n" });
  });

  it("[GW-3] refuses an overlap with both sides shown, and changes nothing", async () => {
    const project = await make({ "a.txt": "1\n2\n3\n", "b.txt": "b\n" });
    await project.commit({ "a.txt": "1\nTWO\n3\n" });
    const before = await project.files();
    const refusal = await refusalOf(project.commit({ "b.txt": "B\n", "a.txt": "1\nzwei\n3\n" }, 1));
    expect(refusal).toMatchObject({
      code: "Conflict",
      details: {
        conflicts: [
          {
            path: "a.txt",
            kind: "content",
            merged: "1\n<<<<<<< project\nTWO\n=======\nzwei\n>>>>>>> yours\n3\n",
          },
        ],
        current_revision: 2,
      },
    });
    expect(refusal.message).toContain("a.txt");
    expect(await project.files()).toEqual(before);
    expect(await project.head()).toMatchObject({ revision: 2 });
  });

  it.each([
    ["delete_modify", { "a.txt": null }, { "a.txt": "mine" }],
    ["modify_delete", { "a.txt": "theirs" }, { "a.txt": null }],
    ["add_add", { "new.txt": "theirs" }, { "new.txt": "mine" }],
    ["binary", { "a.txt": "\0theirs" }, { "a.txt": "mine" }],
  ])("names the conflict %s", async (kind, meanwhile, mine) => {
    const project = await make({ "a.txt": "base" });
    await project.commit(meanwhile);
    const refusal = await refusalOf(project.commit(mine, 1));
    expect(refusal.code).toBe("Conflict");
    expect(refusal.details.conflicts).toMatchObject([{ kind }]);
    expect(await project.head()).toMatchObject({ revision: 2 });
  });

  it("shows no endless merge text", async () => {
    const long = "x".repeat(200_000);
    const project = await make({ "a.txt": "base" });
    await project.commit({ "a.txt": `${long}1` });
    const refusal = await refusalOf(project.commit({ "a.txt": `${long}2` }, 1));
    expect(refusal.details.conflicts).toEqual([{ path: "a.txt", kind: "content" }]);
  });

  it("invalid UTF-8 is binary and comes back byte by byte", async () => {
    const bytes = Buffer.from([0xff, 0xfe, 0x00, 0x80, 0x0a]);
    const project = await make({ "a.bin": "x" });
    await project.commit({ "a.bin": bytes });
    expect((await readFile(test.database.db, project.id, "a.bin")).content).toEqual(bytes);
    const refusal = await refusalOf(project.commit({ "a.bin": Buffer.from([0xff]) }, 1));
    expect(refusal.details.conflicts).toEqual([{ path: "a.bin", kind: "binary" }]);
  });

  it("a base that does not exist yet is a bad parameter", async () => {
    const project = await make({ "a.txt": "1" });
    expect(await refusalOf(project.commit({ "a.txt": "2" }, 2))).toMatchObject({
      code: "InvalidParams",
      details: { issues: [{ path: "base_revision" }] },
    });
  });

  it("[SB-fs] a file and a directory cannot have one name, whichever comes first", async () => {
    const project = await make({ a: "file", "b/c": "in directory" });
    for (const [path, named] of [
      ["a/b", "a/b"],
      ["a/b/c/d", "a/b/c/d"],
      ["b", "b"],
    ] as const) {
      const refusal = await refusalOf(project.commit({ [path]: "x" }));
      expect(refusal.details.conflicts).toEqual([{ path: named, kind: "file_directory" }]);
    }
    expect(await refusalOf(project.commit({ "n/m": "x", n: "y" }))).toMatchObject({ code: "Conflict" });
    expect(await project.commit({ a: null, "a/b": "x" })).toMatchObject({ revision: 2 });
    expect(await project.commit({ "b/c": null, b: "x" })).toMatchObject({ revision: 3 });
    // Neighbours in byte order are no clash.
    expect(await project.commit({ "a-b": "x", "a.b": "x", a0: "x" })).toMatchObject({ revision: 4 });
  });

  it("paths are case-sensitive and NFC; one path twice is refused", async () => {
    const project = await make();
    await project.commit({ "A.txt": "1", "a.txt": "2", "u\u0308.txt": "3" });
    expect(Object.keys(await project.files())).toEqual(["A.txt", "a.txt", "\u00fc.txt"]);
    expect((await readFile(test.database.db, project.id, "u\u0308.txt")).content.toString()).toBe("3");
    expect(await refusalOf(project.commit({ "x.txt": "1", "./x.txt": "2" }))).toMatchObject({
      code: "InvalidParams",
    });
    expect(await refusalOf(project.commit({ "../x": "1" }))).toMatchObject({ code: "InvalidParams" });
  });

  it("unknown projects and revisions are not found", async () => {
    const project = await make({ "a.txt": "1" });
    const { db } = test.database;
    const attempts = [
      () => readTree(db, "prj_none"),
      () => readTree(db, "prj_none", 0),
      () => readTree(db, project.id, 2),
      () => readTree(db, project.id, -1),
      () => readFile(db, "prj_none", "a.txt"),
      () => readFile(db, project.id, "b.txt"),
      () => readFile(db, project.id, "a.txt", 0),
      () => readFile(db, project.id, "a.txt", 7),
    ];
    for (const attempt of attempts) expect(await refusalOf(attempt())).toMatchObject({ code: "NotFound" });
    expect(await readTree(db, (await make()).id)).toEqual([]);
  });

  it("[GW-3] writers of one project at once: every edit stands, revisions have no gap", async () => {
    const project = await make({ "shared.txt": Array.from({ length: 41 }, (_, i) => `${i}\n`).join("") });
    const lines = (await project.files())["shared.txt"]?.split("\n") ?? [];
    const saves = Array.from({ length: 20 }, (_, i) =>
      project.commit(
        { "shared.txt": lines.with(i * 2, `edited ${i}`).join("\n"), [`own-${i}.txt`]: `${i}` },
        1,
      ),
    );
    const revisions = (await Promise.all(saves)).map(({ revision }) => revision).sort((a, b) => a - b);
    expect(revisions).toEqual(Array.from({ length: 20 }, (_, i) => i + 2));
    const merged = (await project.files())["shared.txt"]?.split("\n") ?? [];
    expect(merged).toEqual(lines.map((line, at) => (at % 2 === 0 && at < 40 ? `edited ${at / 2}` : line)));
    expect(await project.head()).toMatchObject({ revision: 21, files: 21 });
  });

  it("[SB-fs] the sums of a project always equal its files", async () => {
    const project = await make();
    const change = fc.dictionary(
      fc.constantFrom("a", "b", "c/d", "c/e", "f"),
      fc.option(fc.string({ maxLength: 20 }), { nil: null }),
    );
    await fc.assert(
      fc.asyncProperty(change, async (files) => {
        await project.commit(files);
        const tree = await readTree(test.database.db, project.id);
        const size = tree.reduce((sum, file) => sum + file.size, 0);
        expect(await project.head()).toMatchObject({ files: tree.length, size });
      }),
      { numRuns: 60 },
    );
  });
});

describe("quotas", () => {
  const tight = { ...QUOTA, fileBytes: 100, projectBytes: 250, projectFiles: 3, userBytes: 400 };

  it.each([
    ["file_bytes", { "a.txt": "x".repeat(101) }, 100, 101],
    ["project_bytes", { a: "x".repeat(100), b: "y".repeat(100), c: "z".repeat(51) }, 250, 251],
    ["project_files", { a: "1", b: "2", c: "3", d: "4" }, 3, 4],
  ])(
    "[SB-fs] %s: the limit and the actual are named, nothing changes",
    async (quota, files, limit, actual) => {
      const project = await make();
      const refusal = await refusalOf(project.commit(files as Record<string, string>, undefined, tight));
      expect(refusal).toMatchObject({ code: "QuotaExceeded", details: { quota, limit, actual } });
      expect(refusal.message).toMatch(/limit/);
      expect(await project.head()).toEqual({ revision: 0, files: 0, size: 0 });
    },
  );

  it("[SB-fs] user_bytes counts all projects of a user, also when two fill up at once", async () => {
    const one = await make();
    const two = await TestProject.make(test.database, {}, one.owner);
    const results = await Promise.allSettled([
      one.commit({ a: "x".repeat(99), b: "b".repeat(99), c: "c".repeat(50) }, undefined, tight),
      two.commit({ a: "y".repeat(99), b: "d".repeat(99), c: "e".repeat(50) }, undefined, tight),
    ]);
    expect(results.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    const refused = results.find((result) => result.status === "rejected");
    expect(refused?.reason).toMatchObject({ details: { quota: "user_bytes", limit: 400, actual: 496 } });
  });

  it("user_history_bytes: one file saved again and again fills up its owner's share, not the disk", async () => {
    const project = await make();
    const small = { ...tight, userBytes: 40 };
    const save = (text: string) => project.commit({ a: text.repeat(40) }, undefined, small);
    for (let round = 0; round < 10; round += 1) await save(String(round));
    // What the history has already costs nothing more.
    expect(await save("3")).toMatchObject({ revision: 11 });
    const refusal = await refusalOf(save("x"));
    expect(refusal).toMatchObject({
      code: "QuotaExceeded",
      details: { quota: "user_history_bytes", limit: 400, actual: 440 },
    });
    const other = await TestProject.make(test.database, {}, project.owner);
    expect(await refusalOf(other.commit({ b: "y" }, undefined, small))).toMatchObject({
      code: "QuotaExceeded",
    });
    expect(await project.commit({ a: null }, undefined, small)).toMatchObject({ revision: 12 });
  });

  it("what already is too much can be made less, and stay", async () => {
    const project = await make({ a: "x".repeat(90), b: "y".repeat(90), c: "z".repeat(90), d: "1" });
    expect(await project.commit({ a: "short" }, undefined, tight)).toMatchObject({ revision: 2 });
    expect(await project.commit({ d: null }, undefined, tight)).toMatchObject({ revision: 3 });
  });

  it("a merge of two files that fit may not fit", async () => {
    const middle = "m\n".repeat(3);
    const project = await make({ a: `t\n${middle}b\n` });
    await project.commit({ a: `${"t".repeat(60)}\n${middle}b\n` });
    expect(await refusalOf(project.commit({ a: `t\n${middle}${"b".repeat(60)}\n` }, 1, tight))).toMatchObject(
      { code: "QuotaExceeded", details: { quota: "file_bytes" } },
    );
  });
});

describe("commitImport", () => {
  it("[GW-3] 5,000 files become one revision in a few statements; replace deletes the rest", async () => {
    const { database, statements } = counted(test.database);
    const project = await make({ "old.txt": "old", "d/0.txt": "was" });
    const contents = Array.from({ length: 5000 }, (_, i) => Buffer.from(`file ${i}\n`));
    const hashes = await putBlobs(database.db, contents);
    const files = hashes.map((blob_hash, i) => ({
      path: `d/${i}.txt`,
      blob_hash,
      size: contents[i]?.length ?? 0,
      executable: i === 7,
    }));
    const who = { project_id: project.id, author: "ada", kind: "import", summary: "Import" } as const;
    const commit = { ...who, files, quota: QUOTA };
    expect(await commitImport(database, { ...commit, replace: false })).toEqual({ revision: 2 });
    expect(statements()).toBeGreaterThan(0);
    expect(statements()).toBeLessThan(60);
    expect(await project.head()).toMatchObject({ revision: 2, files: 5001 });
    expect(await commitImport(test.database, { ...commit, replace: false })).toEqual({ revision: 2 });
    expect(await commitImport(test.database, { ...commit, replace: true })).toEqual({ revision: 3 });
    const tree = await readTree(test.database.db, project.id);
    expect(tree).toHaveLength(5000);
    expect(tree.filter((file) => file.executable).map((file) => file.path)).toEqual(["d/7.txt"]);
  });
});

/** The same database, and how many statements went to it. */
function counted(database: Database): { database: Database; statements: () => number } {
  let count = 0;
  const counter: KyselyPlugin = {
    transformQuery({ node }) {
      count += 1;
      return node;
    },
    transformResult: async ({ result }) => result,
  };
  const watched: Database = {
    ...database,
    db: database.db.withPlugin(counter),
    transaction: (fn) => database.transaction((trx) => fn(trx.withPlugin(counter))),
  };
  return { database: watched, statements: () => count };
}
