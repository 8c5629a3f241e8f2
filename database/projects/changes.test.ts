import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { makeOwner, QUOTA, refusalOf, TestProject } from "#tests/support/projects.ts";
import {
  acceptChange,
  deleteProject,
  getChange,
  getOwnChange,
  insertChange,
  listChanges,
  listRevisions,
  previewChange,
  readTree,
  rejectChange,
} from "./index.ts";

let test: TestDatabase;
beforeAll(async () => {
  test = await testDatabase();
});
afterAll(() => test?.[Symbol.asyncDispose]());
const make = (files?: Record<string, string>) => TestProject.make(test.database, files);
const accept = (
  change_id: string,
  resolutions: Record<string, string | null> = {},
  current_revision?: number,
) =>
  acceptChange(test.database, {
    change_id,
    decided_by: "usr_ada",
    resolutions: Object.entries(resolutions).map(([path, content]) => ({
      path,
      content: content === null ? null : Buffer.from(content),
    })),
    current_revision,
    quota: QUOTA,
  });
const reject = (change_id: string) => rejectChange(test.database, { change_id, decided_by: "usr_ada" });
const stateOf = async (id: string) => (await getChange(test.database.db, id)).state;

describe("changes", () => {
  it("[GW-3] an accepted change is a revision by its author; accepting it again answers the same", async () => {
    const project = await make({ "a.txt": "1", "b.txt": "2" });
    const id = await project.propose({ "a.txt": "one", "b.txt": null, "c.txt": "3" }, 1, {
      task_id: "tsk_1",
    });
    expect(await project.files()).toEqual({ "a.txt": "1", "b.txt": "2" });
    expect(await accept(id)).toEqual({ revision: 2 });
    expect(await accept(id)).toEqual({ revision: 2 });
    expect(await project.files()).toEqual({ "a.txt": "one", "c.txt": "3" });
    const [revision] = await listRevisions(test.database.db, { project_id: project.id, limit: 1 });
    expect(revision).toMatchObject({
      author: "CodeAgent",
      kind: "agent",
      summary: "Proposal",
      change_id: id,
      files: 3,
    });
    const change = await getChange(test.database.db, id);
    expect(change).toMatchObject({ state: "accepted", revision: 2, decided_by: "usr_ada", task_id: "tsk_1" });
    expect(change.decided_at).toBeInstanceOf(Date);
    expect(await refusalOf(reject(id))).toMatchObject({ code: "Conflict", details: { state: "accepted" } });
  });

  it("a rejected change changes nothing and stays rejected", async () => {
    const project = await make({ "a.txt": "1" });
    const id = await project.propose({ "a.txt": "2" }, 1);
    await reject(id);
    await reject(id);
    expect(await stateOf(id)).toBe("rejected");
    expect(await refusalOf(accept(id))).toMatchObject({ code: "Conflict", details: { state: "rejected" } });
    expect(await project.head()).toMatchObject({ revision: 1 });
  });

  it("[GW-3] of many decisions at once one is made", async () => {
    const project = await make({ "a.txt": "1" });
    for (let round = 0; round < 5; round++) {
      const { revision } = await project.head();
      const id = await project.propose({ "a.txt": `round ${round}` }, revision);
      const results = await Promise.allSettled([accept(id), accept(id), accept(id), reject(id), accept(id)]);
      const rejected = (await stateOf(id)) === "rejected";
      expect((await project.head()).revision).toBe(rejected ? revision : revision + 1);
      for (const result of results) {
        if (result.status === "rejected") expect(result.reason).toMatchObject({ code: "Conflict" });
        else if (result.value !== undefined) expect(result.value).toEqual({ revision: revision + 1 });
      }
    }
  });

  it("[GW-3] merges with what came since its base; the executable bit comes along", async () => {
    const project = await make({ "a.txt": "1\n2\n3\n", "x.sh": "x" });
    const base = await readTree(test.database.db, project.id);
    const script = base.find((file) => file.path === "x.sh")?.blob_hash ?? null;
    const text = await project.propose({ "a.txt": "1\n2\nTHREE\n" }, 1);
    const bit = await project.propose({}, 1, {
      files: [{ path: "x.sh", base_hash: script, new_hash: script, executable: true }],
    });
    await project.commit({ "a.txt": "ONE\n2\n3\n", "x.sh": "X" });
    expect(await previewChange(test.database.db, await getChange(test.database.db, text))).toMatchObject({
      conflicts: [],
      current_revision: 2,
    });
    expect(await accept(text)).toEqual({ revision: 3 });
    expect(await accept(bit)).toEqual({ revision: 4 });
    expect(await project.files()).toEqual({ "a.txt": "ONE\n2\nTHREE\n", "x.sh": "X" });
    const tree = await readTree(test.database.db, project.id);
    expect(tree.find((file) => file.path === "x.sh")?.executable).toBe(true);
  });

  it("a change the project has made by itself already is accepted without a revision", async () => {
    const project = await make({ "a.txt": "1" });
    const id = await project.propose({ "a.txt": "2" }, 1);
    await project.commit({ "a.txt": "2" });
    expect(await accept(id)).toEqual({ revision: 2 });
    expect(await stateOf(id)).toBe("accepted");
    expect(await accept(id)).toEqual({ revision: 2 });
  });

  it("[GW-3] a conflict is previewed, refused, and accepted with a resolution per file", async () => {
    const project = await make({ "a.txt": "1\n", "b.txt": "b\n", "c.txt": "c\n", d: "d" });
    const id = await project.propose(
      { "a.txt": "mine\n", "b.txt": null, "c.txt": "C\n", "e.txt": "e\n", "d/x": "x", d: null },
      1,
    );
    await project.commit({ "a.txt": "theirs\n", "b.txt": "B\n", "e.txt": "E\n", d: "D" });
    const preview = await previewChange(test.database.db, await getChange(test.database.db, id));
    expect(preview.conflicts.map(({ path, kind, current }) => [path, kind, current?.size ?? null])).toEqual([
      ["a.txt", "content", 7],
      ["b.txt", "modify_delete", 2],
      ["d", "modify_delete", 1],
      ["e.txt", "add_add", 2],
      ["d/x", "file_directory", null],
    ]);
    expect(preview.conflicts[0]?.merged).toBe("<<<<<<< project\ntheirs\n=======\nmine\n>>>>>>> change\n");
    expect(await refusalOf(accept(id))).toMatchObject({
      code: "Conflict",
      details: { conflicts: [{ path: "a.txt" }, { path: "b.txt" }, { path: "d" }, { path: "e.txt" }] },
    });
    expect(
      await refusalOf(accept(id, { "a.txt": "both\n", "b.txt": null, "e.txt": "EE\n", d: "D" })),
    ).toMatchObject({
      details: { conflicts: [{ path: "d/x", kind: "file_directory" }] },
    });
    expect(await stateOf(id)).toBe("proposed");
    expect(await project.head()).toMatchObject({ revision: 2 });
    const resolutions = { "a.txt": "both\n", "b.txt": null, "e.txt": "EE\n", d: null };
    expect(await accept(id, resolutions)).toEqual({ revision: 3 });
    expect(await project.files()).toEqual({ "a.txt": "both\n", "c.txt": "C\n", "d/x": "x", "e.txt": "EE\n" });
  });

  it("a resolution made before somebody changed the file again does not overwrite it", async () => {
    const project = await make({ "a.txt": "1\n" });
    const id = await project.propose({ "a.txt": "mine\n" }, 1);
    await project.commit({ "a.txt": "theirs\n" });
    await project.commit({ "a.txt": "newer\n" });
    expect(await refusalOf(accept(id, { "a.txt": "resolved\n" }, 2))).toMatchObject({
      code: "Conflict",
      details: { conflicts: [{ path: "a.txt", kind: "content" }], current_revision: 3 },
    });
    expect(await accept(id, { "a.txt": "resolved\n" }, 3)).toEqual({ revision: 4 });
  });

  it("resolutions must be of the change's files, once each, and fit", async () => {
    const project = await make({ "a.txt": "1\n" });
    const id = await project.propose({ "a.txt": "2\n" }, 1);
    expect(await refusalOf(accept(id, { "other.txt": "x" }))).toMatchObject({ code: "InvalidParams" });
    expect(await refusalOf(accept(id, { "a.txt": "x", "./a.txt": "y" }))).toMatchObject({
      code: "InvalidParams",
    });
    expect(await refusalOf(accept(id, { "a.txt": "x".repeat(QUOTA.fileBytes + 1) }))).toMatchObject({
      code: "QuotaExceeded",
    });
    expect(await accept(id, { "./a.txt": "my own\n" })).toEqual({ revision: 2 });
    expect(await project.files()).toEqual({ "a.txt": "my own\n" });
  });

  it("lists a project's changes newest first, in pages and by state", async () => {
    const project = await make({ "a.txt": "1" });
    const ids: string[] = [];
    for (let i = 0; i < 5; i++) ids.push(await project.propose({ "a.txt": `${i}x` }, 1));
    await reject(ids[1] ?? "");
    const seen: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await listChanges(test.database.db, { project_id: project.id, cursor, limit: 2 });
      seen.push(...page.changes.map(({ id }) => id));
      cursor = page.next_cursor;
    } while (cursor !== undefined);
    expect(seen).toEqual([...ids].reverse());
    const rejected = await listChanges(test.database.db, {
      project_id: project.id,
      state: "rejected",
      limit: 9,
    });
    expect(rejected.changes.map(({ id }) => id)).toEqual([ids[1]]);
    for (const bad of ["x", "!!", Buffer.from("1 a|b\n").toString("base64url")]) {
      const refusal = await refusalOf(
        listChanges(test.database.db, { project_id: project.id, cursor: bad, limit: 2 }),
      );
      expect(refusal).toMatchObject({ code: "InvalidParams", details: { issues: [{ path: "cursor" }] } });
    }
  });

  it("[GW-3] somebody else's change is not found, nor is one that never was", async () => {
    const project = await make({ "a.txt": "1" });
    const id = await project.propose({ "a.txt": "2" }, 1);
    const stranger = await makeOwner(test.database);
    expect(await getOwnChange(test.database.db, id, project.owner)).toMatchObject({ id });
    expect(await refusalOf(getOwnChange(test.database.db, id, stranger))).toMatchObject({ code: "NotFound" });
    expect(await refusalOf(accept("chg_none"))).toMatchObject({ code: "NotFound" });
    expect(await refusalOf(reject("chg_none"))).toMatchObject({ code: "NotFound" });
  });

  it("records no change of a project that is gone, and none with paths that are not normal", async () => {
    const project = await make({ "a.txt": "1" });
    const file = { base_hash: null, new_hash: null, executable: false };
    const change = {
      id: "chg_x",
      project_id: project.id,
      author: "CodeAgent",
      base_revision: 1,
      summary: "x",
    };
    for (const paths of [["../x"], ["a//b"], ["a", "a"], ["u\u0308"]]) {
      const files = paths.map((path) => ({ path, ...file }));
      expect(await refusalOf(insertChange(test.database.db, { ...change, files }))).toMatchObject({
        code: "InvalidParams",
      });
    }
    await deleteProject(test.database.db, project.id);
    expect(await insertChange(test.database.db, { ...change, files: [] })).toBe(false);
  });
});
