import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { insertChange, putBlobs, readTree } from "#database/projects/index.ts";
import { newId } from "#platform/ids.ts";
import { type ApiServer, type ApiUser, apiServer } from "#tests/support/api-server.ts";

let server: ApiServer;
let ada: ApiUser;
let bob: ApiUser;
beforeAll(async () => {
  server = await apiServer();
  [ada, bob] = [await server.user("ada"), await server.user("bob")];
});
afterAll(() => server?.[Symbol.asyncDispose]());

/** A project with these files, each saved as a revision. */
const make = async (files: Record<string, string>) => {
  const { id } = await ada.client.call("project.create", { name: "Rathaus" });
  for (const [path, content] of Object.entries(files)) {
    await ada.client.call("project.file.save", { project_id: id, path, content });
  }
  return id;
};

/** Propose files (null deletes) of the project's newest revision, as an agent's run does. */
const propose = async (project_id: string, files: Record<string, string | Buffer | null>) => {
  const { db } = server.test.database;
  const base = new Map((await readTree(db, project_id)).map((file) => [file.path, file.blob_hash]));
  const { revision } = await ada.client.call("project.open", { id: project_id });
  const proposed: Parameters<typeof insertChange>[1]["files"][number][] = [];
  for (const [path, content] of Object.entries(files)) {
    const [new_hash = null] = content === null ? [] : await putBlobs(db, [Buffer.from(content)]);
    proposed.push({ path, base_hash: base.get(path) ?? null, new_hash, executable: false });
  }
  const change = { project_id, author: "CodeAgent", summary: "Greet", base_revision: revision };
  const id = newId("change");
  await insertChange(db, { ...change, id, files: proposed });
  return id;
};

const refusal = async (work: Promise<unknown>) => {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  return error as { code: string; details: Record<string, unknown> };
};
const read = async (project_id: string, path: string) =>
  (await ada.client.call("fs.read", { project_id, path })).content;

describe("parts of a change", () => {
  it("[AG-2] hunks are told, chosen and accepted; the rest waits for a decision of its own", async () => {
    const project_id = await make({ "a.txt": "1\n2\n3\n4\n5\n", "b.txt": "b\n" });
    const files = { "a.txt": "one\n2\n3\n4\nfive\nsix\n", "b.txt": null, "c.bin": Buffer.from([0]) };
    const change_id = await propose(project_id, files);
    const shown = await ada.client.call("change.get", { change_id });
    expect(shown.files.map(({ path, hunks }) => [path, hunks])).toEqual([
      [
        "a.txt",
        [
          { index: 0, old_start: 1, old_lines: 1, new_start: 1, new_lines: 1 },
          { index: 1, old_start: 5, old_lines: 1, new_start: 5, new_lines: 2 },
        ],
      ],
      ["b.txt", undefined],
      ["c.bin", undefined],
    ]);
    const hunks = [{ path: "a.txt", indexes: [1] }, { path: "c.bin" }];
    const accepted = await ada.client.call("change.accept", { change_id, hunks });
    expect(accepted).toMatchObject({ change_id, state: "accepted", revision: 3 });
    expect(await read(project_id, "a.txt")).toBe("1\n2\n3\n4\nfive\nsix\n");
    const rest = accepted.remaining_change_id ?? "";
    const left = await ada.client.call("change.get", { change_id: rest });
    expect(left).toMatchObject({ state: "proposed", base_revision: 3, summary: "Greet", conflicts: [] });
    expect(left.files.map(({ path, status }) => [path, status])).toEqual([
      ["a.txt", "modified"],
      ["b.txt", "deleted"],
    ]);
    expect(await ada.client.call("change.accept", { change_id: rest })).toEqual({
      change_id: rest,
      state: "accepted",
      revision: 4,
    });
    expect(await read(project_id, "a.txt")).toBe(files["a.txt"]);
  });

  it("a choice of nothing, of what is not there, or of part of what has no parts is refused", async () => {
    const project_id = await make({ "a.txt": "1\n", bin: "\0" });
    const change_id = await propose(project_id, { "a.txt": "2\n", bin: Buffer.from([0, 1]) });
    for (const hunks of [
      [],
      [{ path: "a.txt", indexes: [] }],
      [{ path: "a.txt", indexes: [1] }],
      [{ path: "a.txt", indexes: [-1] }],
      [{ path: "bin", indexes: [0] }],
      [{ path: "other.txt" }],
    ]) {
      const error = await refusal(ada.client.call("change.accept", { change_id, hunks }));
      expect(error).toMatchObject({ code: "InvalidParams" });
    }
    expect((await ada.client.call("change.get", { change_id })).state).toBe("proposed");
  });
});

describe("undoing over RPC", () => {
  it("[AG-2] change.revert and project.revert keep what came after", async () => {
    const project_id = await make({ "a.txt": "1\n2\n3\n" });
    const change_id = await propose(project_id, { "a.txt": "one\n2\n3\n" });
    await ada.client.call("change.accept", { change_id });
    await ada.client.call("project.file.save", { project_id, path: "a.txt", content: "one\n2\nthree\n" });
    const undone = await ada.client.call("change.revert", { change_id });
    expect(undone).toMatchObject({ state: "accepted", revision: 4, conflicts: [] });
    expect(await read(project_id, "a.txt")).toBe("1\n2\nthree\n");
    const { revisions } = await ada.client.call("project.revisions", { project_id, limit: 1 });
    expect(revisions[0]).toMatchObject({ author: "ada", summary: "Undo revision 2: Greet" });
    const again = await ada.client.call("project.revert", { id: project_id, revision: undone.revision });
    expect(again).toMatchObject({ state: "accepted", revision: 5 });
    expect(await read(project_id, "a.txt")).toBe("one\n2\nthree\n");
    expect(await ada.client.call("change.revert", { change_id: again.change_id ?? "" })).toMatchObject({
      state: "accepted",
      revision: 6,
    });
  });

  it("[AG-2] a collision is a change with conflicts, which change.get shows", async () => {
    const project_id = await make({ "a.txt": "1\n" });
    await ada.client.call("project.file.save", { project_id, path: "a.txt", content: "2\n" });
    await ada.client.call("fs.move", { project_id, src: "a.txt", dest: "b.txt" });
    await ada.client.call("project.file.save", { project_id, path: "b.txt", content: "3\n" });
    const undone = await ada.client.call("project.revert", { id: project_id, revision: 2 });
    expect(undone).toMatchObject({ state: "proposed", revision: 4, conflicts: [{ kind: "delete_modify" }] });
    const { conflicts } = await ada.client.call("change.get", { change_id: undone.change_id ?? "" });
    expect(conflicts).toMatchObject([{ path: "a.txt", kind: "delete_modify", current: null }]);
  });

  it("[AG-2] a conflict in a file that was moved says where it was", async () => {
    const lines = Array.from({ length: 9 }, (_, index) => `${index}\n`);
    const project_id = await make({ "a.txt": lines.join("") });
    const change_id = await propose(project_id, { "a.txt": lines.with(4, "mine\n").join("") });
    await ada.client.call("fs.move", { project_id, src: "a.txt", dest: "b.txt" });
    const moved = { project_id, path: "b.txt", content: lines.with(4, "theirs\n").join("") };
    await ada.client.call("project.file.save", moved);
    const { conflicts } = await ada.client.call("change.get", { change_id });
    expect(conflicts).toMatchObject([
      { path: "b.txt", kind: "content", moved_from: "a.txt", current: { content: moved.content } },
    ]);
    const resolutions = [{ path: "b.txt", content: "both\n" }];
    await ada.client.call("change.accept", { change_id, resolutions });
    const { tree } = await ada.client.call("project.open", { id: project_id });
    expect(tree.map(({ path }) => path)).toEqual(["b.txt"]);
    expect(await ada.client.call("change.revert", { change_id })).toMatchObject({ state: "accepted" });
    expect(await read(project_id, "b.txt")).toBe(moved.content);
  });

  it("[GW-2] what is not accepted, not there or somebody else's is not undone", async () => {
    const project_id = await make({ "a.txt": "1\n" });
    const change_id = await propose(project_id, { "a.txt": "2\n" });
    expect(await refusal(ada.client.call("change.revert", { change_id }))).toMatchObject({
      code: "Conflict",
    });
    await ada.client.call("change.accept", { change_id });
    for (const attempt of [
      bob.client.call("change.revert", { change_id }),
      bob.client.call("project.revert", { id: project_id, revision: 1 }),
      ada.client.call("project.revert", { id: project_id, revision: 3 }),
      ada.client.call("change.revert", { change_id: "chg_none" }),
    ].map(refusal)) {
      expect(await attempt).toMatchObject({ code: "NotFound" });
    }
  });
});
