import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { QUOTA, refusalOf, TestProject } from "#tests/support/projects.ts";
import { acceptChange, previewAcceptance, readBlobs, rejectChange } from "./index.ts";

let test: TestDatabase;
beforeAll(async () => {
  test = await testDatabase();
});
afterAll(() => test?.[Symbol.asyncDispose]());

const make = (files: Record<string, string>) => TestProject.make(test.database, files);
const asked = (change_id: string) => ({ change_id, decided_by: "usr_ada", quota: QUOTA });
const preview = async (change_id: string, more: object = {}) => {
  const { files, project, ...seen } = await previewAcceptance(test.database.db, {
    ...asked(change_id),
    ...more,
  });
  const hashes = files.flatMap(({ to }) => (to === null ? [] : [to.blob_hash]));
  const contents = await readBlobs(test.database.db, hashes);
  const made = files.map(({ path, to }) => [
    path,
    to && contents.get(to.blob_hash.toString("hex"))?.toString(),
  ]);
  return {
    ...seen,
    project_id: project.id,
    files: Object.fromEntries(made) as Record<string, string | null>,
  };
};

describe("what accepting would commit", () => {
  it("[AG-2] is told without committing it, merged with what came since", async () => {
    const project = await make({ "a.txt": "1\n2\n3\n", "b.txt": "b\n", "same.txt": "s\n" });
    const id = await project.propose({ "a.txt": "one\n2\n3\n", "b.txt": null, "same.txt": "S\n" }, 1);
    expect(await preview(id)).toEqual({
      project_id: project.id,
      head_revision: 1,
      moved: false,
      files: { "a.txt": "one\n2\n3\n", "b.txt": null, "same.txt": "S\n" },
    });
    await project.commit({ "a.txt": "1\n2\nthree\n", "same.txt": "S\n" });
    const seen = await preview(id);
    expect(seen).toMatchObject({ head_revision: 2, moved: true });
    expect(seen.files).toEqual({ "a.txt": "one\n2\nthree\n", "b.txt": null });
    expect(await project.head()).toMatchObject({ revision: 2, files: 3 });
    await acceptChange(test.database, asked(id));
    expect(await project.files()).toEqual({ "a.txt": "one\n2\nthree\n", "same.txt": "S\n" });
    expect(await preview(id)).toMatchObject({ moved: false, files: {} });
  });

  it("[AG-2] with hunks and resolutions is what those make of it", async () => {
    const project = await make({ "a.txt": "1\n2\n3\n", "b.txt": "b\n" });
    const id = await project.propose({ "a.txt": "one\n2\nthree\n", "b.txt": "B\n" }, 1);
    expect((await preview(id, { hunks: [{ path: "a.txt", indexes: [1] }] })).files).toEqual({
      "a.txt": "1\n2\nthree\n",
    });
    await project.commit({ "b.txt": "ours\n" });
    expect(await refusalOf(preview(id))).toMatchObject({
      code: "Conflict",
      details: { conflicts: [{ path: "b.txt" }] },
    });
    const resolutions = [{ path: "b.txt", content: Buffer.from("both\n") }];
    expect((await preview(id, { resolutions })).files).toMatchObject({ "b.txt": "both\n" });
    expect(await project.head()).toMatchObject({ revision: 2 });
  });

  it("refuses what could not be accepted", async () => {
    const project = await make({ "a.txt": "1\n" });
    const clash = await project.propose({ "d/x.txt": "x\n" }, 1);
    await project.commit({ d: "file\n" });
    expect(await refusalOf(preview(clash))).toMatchObject({
      details: { conflicts: [{ path: "d/x.txt", kind: "file_directory" }] },
    });
    await rejectChange(test.database, { change_id: clash, decided_by: "usr_ada" });
    expect(await refusalOf(preview(clash))).toMatchObject({
      code: "Conflict",
      details: { state: "rejected" },
    });
    expect(await refusalOf(preview("chg_none"))).toMatchObject({ code: "NotFound" });
  });
});

describe("accepting what was tried on a revision", () => {
  it("[AG-2] commits only while the project is still there", async () => {
    const project = await make({ "a.txt": "1\n" });
    const id = await project.propose({ "b.txt": "b\n" }, 1);
    const { head_revision } = await preview(id);
    await project.commit({ "c.txt": "c\n" });
    const refusal = await refusalOf(
      acceptChange(test.database, { ...asked(id), expected_head: head_revision }),
    );
    expect(refusal).toMatchObject({ code: "Conflict", details: { reason: "moved", current_revision: 2 } });
    expect(await project.head()).toMatchObject({ revision: 2 });
    expect(await acceptChange(test.database, { ...asked(id), expected_head: 2 })).toEqual({ revision: 3 });
    // It is done: what has happened since makes no difference to that.
    expect(await acceptChange(test.database, { ...asked(id), expected_head: 2 })).toEqual({ revision: 3 });
  });

  it("[AG-2] of many at once that were tried on one revision, one lands", async () => {
    const project = await make({ "a.txt": "1\n" });
    const ids = await Promise.all(["b", "c", "d"].map((name) => project.propose({ [name]: "x\n" }, 1)));
    const results = await Promise.allSettled(
      ids.map((id) => acceptChange(test.database, { ...asked(id), expected_head: 1 })),
    );
    expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    expect(await project.head()).toMatchObject({ revision: 2, files: 2 });
  });
});
