import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { makeOwner, QUOTA, refusalOf, TestProject } from "#tests/support/projects.ts";
import {
  acceptChange,
  getChange,
  listChanges,
  listRevisions,
  movePath,
  previewChange,
  rejectChange,
  revertChange,
  revertRevision,
} from "./index.ts";

let test: TestDatabase;
let owner: string;
beforeAll(async () => {
  test = await testDatabase();
  owner = await makeOwner(test.database);
});
afterAll(() => test?.[Symbol.asyncDispose]());

const BY = { author: "ada", decided_by: "usr_ada", quota: QUOTA };
const make = (files: Record<string, string>) => TestProject.make(test.database, files, owner);
const accept = (change_id: string, resolutions: { path: string; content: Buffer | null }[] = []) =>
  acceptChange(test.database, { change_id, decided_by: "usr_ada", resolutions, quota: QUOTA });
const revert = (change_id: string) => revertChange(test.database, { change_id, ...BY });
const undo = (project: TestProject, revision: number) =>
  revertRevision(test.database, { project_id: project.id, revision, ...BY });
const rows = (count: number) => Array.from({ length: count }, (_, index) => `line ${index}`);
const text = (lines: readonly string[]) => lines.map((line) => `${line}\n`).join("");

describe("undoing", () => {
  it("[AG-2] an accepted change, also after later ones: they stay", async () => {
    const project = await make({ "a.txt": text(rows(9)), "b.txt": "b\n", "c.txt": "c\n" });
    const id = await project.propose(
      { "a.txt": text(rows(9).with(1, "agent")), "b.txt": null, "n.txt": "n\n" },
      1,
    );
    await accept(id);
    await project.commit({ "a.txt": text(rows(9).with(1, "agent").with(7, "later")), "c.txt": "C\n" });
    const undone = await revert(id);
    expect(undone).toMatchObject({ state: "accepted", revision: 4, conflicts: [] });
    expect(await project.files()).toEqual({
      "a.txt": text(rows(9).with(7, "later")),
      "b.txt": "b\n",
      "c.txt": "C\n",
    });
    const [revision] = await listRevisions(test.database.db, { project_id: project.id, limit: 1 });
    expect(revision).toMatchObject({
      revision: 4,
      author: "ada",
      kind: "rollback",
      summary: "Undo revision 2: Proposal",
      change_id: undone.change_id,
      files: 3,
    });
    expect(await getChange(test.database.db, undone.change_id ?? "")).toMatchObject({
      state: "accepted",
      revision: 4,
      reverts: 2,
      decided_by: "usr_ada",
    });
  });

  it("[AG-2] twice changes nothing more; undoing the undoing brings it back", async () => {
    const project = await make({ "a.txt": "1\n" });
    const id = await project.propose({ "a.txt": "2\n" }, 1);
    await accept(id);
    const first = await revert(id);
    expect(await revert(id)).toEqual({ state: "accepted", revision: 3, conflicts: [] });
    expect(await undo(project, 2)).toEqual({ state: "accepted", revision: 3, conflicts: [] });
    const { changes } = await listChanges(test.database.db, { project_id: project.id, limit: 9 });
    expect(changes).toHaveLength(2);
    const second = await revert(first.change_id ?? "");
    expect(await project.files()).toEqual({ "a.txt": "2\n" });
    await undo(project, second.revision);
    expect(await project.files()).toEqual({ "a.txt": "1\n" });
    const summary = (await getChange(test.database.db, second.change_id ?? "")).summary;
    expect(summary).toBe("Undo revision 3: Undo revision 2: Proposal");
    for (let round = 0; round < 12; round += 1) await undo(project, (await project.head()).revision);
    const [{ summary: longest } = { summary: "" }] = await listRevisions(test.database.db, {
      project_id: project.id,
      limit: 1,
    });
    expect(longest.length).toBeLessThanOrEqual(200);
  });

  it("[AG-2] what collides with later edits is proposed with its conflicts, and resolved as any change", async () => {
    const project = await make({ "a.txt": "1\n", "b.txt": "b\n" });
    const id = await project.propose({ "a.txt": "2\n", "b.txt": "B\n" }, 1);
    await accept(id);
    await project.commit({ "a.txt": "3\n" });
    const { change_id = "", ...undone } = await revert(id);
    expect(undone).toMatchObject({
      state: "proposed",
      revision: 3,
      conflicts: [{ path: "a.txt", kind: "content" }],
    });
    expect(await project.files()).toEqual({ "a.txt": "3\n", "b.txt": "B\n" });
    expect(await getChange(test.database.db, change_id)).toMatchObject({ author: "ada", reverts: 2 });
    await accept(change_id, [{ path: "a.txt", content: Buffer.from("1 and 3\n") }]);
    expect(await project.files()).toEqual({ "a.txt": "1 and 3\n", "b.txt": "b\n" });
    const [revision] = await listRevisions(test.database.db, { project_id: project.id, limit: 1 });
    expect(revision).toMatchObject({ kind: "rollback", author: "ada" });
  });

  it("[AG-2] of a file that was deleted later asks; of one that was moved later follows it", async () => {
    const project = await make({ "a.txt": text(rows(9)), "b.txt": text(rows(9)) });
    const id = await project.propose(
      { "a.txt": text(rows(9).with(1, "x")), "b.txt": text(rows(9).with(1, "y")) },
      1,
    );
    await accept(id);
    await movePath(test.database, {
      project_id: project.id,
      src: "a.txt",
      dest: "d/moved.txt",
      author: "ada",
      quota: QUOTA,
    });
    expect(await revert(id)).toMatchObject({ state: "accepted" });
    expect(await project.files()).toEqual({ "b.txt": text(rows(9)), "d/moved.txt": text(rows(9)) });
    await undo(project, 4);
    await project.commit({ "b.txt": null });
    const again = await revert(id);
    expect(again).toMatchObject({ state: "proposed", conflicts: [{ path: "b.txt", kind: "delete_modify" }] });
    await accept(again.change_id ?? "", [{ path: "b.txt", content: null }]);
    expect(await project.files()).toEqual({ "d/moved.txt": text(rows(9)) });
  });

  it("[AG-2] a move goes back to where it was, with what was edited since", async () => {
    const project = await make({ "a.txt": text(rows(9)) });
    const id = await project.propose({ "a.txt": null, "b.txt": text(rows(9)) }, 1);
    await accept(id);
    await project.commit({ "b.txt": text(rows(9).with(4, "later")) });
    await revert(id);
    expect(await project.files()).toEqual({ "a.txt": text(rows(9).with(4, "later")) });
  });

  it("a file added stays when it was moved later, until somebody decides", async () => {
    const project = await make({ "a.txt": "a\n" });
    const id = await project.propose({ "n.txt": text(rows(5)) }, 1);
    await accept(id);
    await project.commit({ "n.txt": null, "m.txt": text(rows(5)) });
    const undone = await revert(id);
    expect(undone).toMatchObject({
      state: "proposed",
      conflicts: [{ path: "m.txt", kind: "move_delete", moved_from: "n.txt" }],
    });
    const preview = await previewChange(
      test.database.db,
      await getChange(test.database.db, undone.change_id ?? ""),
    );
    expect(preview.conflicts[0]?.current).toMatchObject({ path: "m.txt" });
    await accept(undone.change_id ?? "", [{ path: "m.txt", content: null }]);
    expect(await project.files()).toEqual({ "a.txt": "a\n" });
  });

  it("a file where a directory has come to be is a conflict", async () => {
    const project = await make({ d: "file\n" });
    await project.commit({ d: null });
    await project.commit({ "d/x.txt": "x\n" });
    expect(await undo(project, 2)).toMatchObject({
      state: "proposed",
      conflicts: [{ path: "d", kind: "file_directory" }],
    });
  });

  it("[AG-2] any revision can be undone, the first as well; none that is not there", async () => {
    const project = await make({ "a.txt": "1\n" });
    await project.commit({ "b.txt": "2\n" });
    expect(await undo(project, 1)).toMatchObject({ state: "accepted", revision: 3 });
    expect(await project.files()).toEqual({ "b.txt": "2\n" });
    for (const revision of [0, 4, -1]) {
      expect(await refusalOf(undo(project, revision))).toMatchObject({ code: "NotFound" });
    }
  });

  it("a change accepted along with another, or found done, is undone by its own files", async () => {
    const project = await make({ "a.txt": text(rows(9)) });
    const below = await project.propose({ "a.txt": text(rows(9).with(1, "below")) }, 1);
    const above = await project.propose({ "a.txt": text(rows(9).with(1, "below").with(7, "above")) }, 1, {
      builds_on: [below],
    });
    await accept(above);
    await revert(below);
    expect(await project.files()).toEqual({ "a.txt": text(rows(9).with(7, "above")) });
    const done = await project.propose({ "n.txt": "n\n" }, 3);
    await project.commit({ "n.txt": "n\n" });
    expect(await accept(done)).toEqual({ revision: 4 });
    await revert(done);
    expect(await project.files()).toEqual({ "a.txt": text(rows(9).with(7, "above")) });
  });

  it("what is not accepted cannot be undone", async () => {
    const project = await make({ "a.txt": "1\n" });
    const id = await project.propose({ "a.txt": "2\n" }, 1);
    expect(await refusalOf(revert(id))).toMatchObject({ code: "Conflict", details: { state: "proposed" } });
    await rejectChange(test.database, { change_id: id, decided_by: "usr_ada" });
    expect(await refusalOf(revert(id))).toMatchObject({ code: "Conflict", details: { state: "rejected" } });
    expect(await refusalOf(revert("chg_none"))).toMatchObject({ code: "NotFound" });
  });
});
