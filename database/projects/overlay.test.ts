import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { type Files, QUOTA, TestProject } from "#tests/support/projects.ts";
import { readBlobs } from "./blobs.ts";
import { type Overlay, overlayChanges } from "./overlay.ts";

let test: TestDatabase;
beforeAll(async () => {
  test = await testDatabase();
});
afterAll(() => test[Symbol.asyncDispose]());

const START: Files = { "a.txt": "1\n2\n3\n4\n5\n6\n7\n", "b.txt": "b\n", "c.txt": "c\n" };

async function laid(project: TestProject, changes: readonly string[]): Promise<Overlay> {
  const { revision } = await project.head();
  return overlayChanges(test.database.db, { project_id: project.id, revision, quota: QUOTA }, changes);
}

async function texts({ files }: Overlay): Promise<Record<string, string | null>> {
  const hashes = files.flatMap(({ to }) => (to === null ? [] : [to.blob_hash]));
  const blobs = await readBlobs(test.database.db, hashes);
  return Object.fromEntries(
    files.map(({ path, to }) => [
      path,
      to === null ? null : (blobs.get(to.blob_hash.toString("hex"))?.toString() ?? "missing"),
    ]),
  );
}

describe("[AG-2] changes laid over a project", () => {
  it("are merged with it and with each other, and nothing is committed", async () => {
    const project = await TestProject.make(test.database, START);
    const base = (await project.head()).revision;
    const one = await project.propose(
      { "a.txt": START["a.txt"]?.replace("1", "eins") ?? "", "n.txt": "neu\n" },
      base,
    );
    const two = await project.propose(
      { "a.txt": START["a.txt"]?.replace("7", "sieben") ?? "", "b.txt": null },
      base,
    );
    await project.commit({ "a.txt": START["a.txt"]?.replace("4", "vier") ?? "" });
    const before = await project.head();
    const overlay = await laid(project, [one, two]);
    expect(overlay.conflicts).toEqual([]);
    expect(await texts(overlay)).toEqual({
      "a.txt": "eins\n2\n3\nvier\n5\n6\nsieben\n",
      "b.txt": null,
      "n.txt": "neu\n",
    });
    expect(await project.head()).toEqual(before);
    expect(await laid(project, [])).toEqual({ files: [], conflicts: [] });
  });

  it("keep both sides where they collide: texts between markers, anything else as the first has it", async () => {
    const project = await TestProject.make(test.database, START);
    const base = (await project.head()).revision;
    const one = await project.propose({ "b.txt": "mine\n", "c.txt": Buffer.from([0, 1, 2]) }, base);
    const two = await project.propose({ "b.txt": "yours\n", "c.txt": Buffer.from([0, 3, 4]) }, base);
    const overlay = await laid(project, [one, two]);
    expect(overlay.conflicts.map(({ path, kind }) => [path, kind])).toEqual([
      ["b.txt", "content"],
      ["c.txt", "binary"],
    ]);
    const now = await texts(overlay);
    expect(now["b.txt"]).toMatch(/^<{7} before\nmine\n(\|{7}[\s\S]*)?={7}\nyours\n>{7} change\n$/);
    expect(now["c.txt"]).toBe("\0\u0001\u0002");
  });

  it("say that one of them is gone", async () => {
    const project = await TestProject.make(test.database, START);
    await expect(laid(project, ["chg_none"])).rejects.toMatchObject({ code: "NotFound" });
  });
});
