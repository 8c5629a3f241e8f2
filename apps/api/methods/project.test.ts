import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { insertChange, putBlobs, readTree } from "#database/projects/index.ts";
import { getTask } from "#database/queue/index.ts";
import { newId } from "#platform/ids.ts";
import { type ApiServer, type ApiUser, apiServer } from "#tests/support/api-server.ts";

let server: ApiServer;
let ada: ApiUser;
let project_id: string;
beforeAll(async () => {
  server = await apiServer();
  ada = await server.user("ada");
});
afterAll(() => server?.[Symbol.asyncDispose]());

const make = async (files: Record<string, string> = {}) => {
  ({ id: project_id } = await ada.client.call("project.create", { name: "Rathaus" }));
  for (const [path, content] of Object.entries(files)) {
    await ada.client.call("project.file.save", { project_id, path, content });
  }
  return project_id;
};

/** Propose files (null deletes) as an agent's run does. */
const propose = async (files: Record<string, string | Buffer | null>, base_revision: number) => {
  const { db } = server.test.database;
  const id = newId("change");
  const base = new Map((await readTree(db, project_id, base_revision)).map((file) => [file.path, file]));
  const proposed: Parameters<typeof insertChange>[1]["files"][number][] = [];
  for (const [path, content] of Object.entries(files)) {
    const [new_hash = null] = content === null ? [] : await putBlobs(db, [Buffer.from(content)]);
    proposed.push({ path, base_hash: base.get(path)?.blob_hash ?? null, new_hash, executable: false });
  }
  const change = {
    id,
    project_id,
    task_id: "tsk_x",
    author: "CodeAgent",
    summary: "Proposal",
    base_revision,
  };
  await insertChange(db, { ...change, files: proposed });
  return id;
};

const failing = async (work: Promise<unknown>) => {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  return error as { code: string; message: string; details: Record<string, unknown> };
};

describe("project methods", () => {
  it("[GW-3] create, list, open, rename, save, revisions, rollback, delete", async () => {
    const created = await ada.client.call("project.create", { name: "  Rathaus " });
    expect(created).toMatchObject({ name: "Rathaus", revision: 0, files: 0, size: 0 });
    const { id } = created;
    const save = { project_id: id, path: "src/a.js" };
    expect(await ada.client.call("project.file.save", { ...save, content: "1\n2\n3\n" })).toEqual({
      revision: 1,
      merged: false,
    });
    await ada.client.call("project.file.save", { ...save, content: "ONE\n2\n3\n" });
    expect(
      await ada.client.call("project.file.save", { ...save, content: "1\n2\nTHREE\n", base_revision: 1 }),
    ).toEqual({ revision: 3, merged: true });
    const conflict = await failing(
      ada.client.call("project.file.save", { ...save, content: "eins\n2\n3\n", base_revision: 1 }),
    );
    expect(conflict).toMatchObject({
      code: "Conflict",
      details: { conflicts: [{ path: "src/a.js", kind: "content" }] },
    });
    expect(await ada.client.call("project.rollback", { project_id: id, revision: 1 })).toEqual({
      revision: 4,
    });
    expect(await ada.client.call("project.rename", { id, name: "Neu" })).toMatchObject({
      name: "Neu",
      revision: 4,
    });
    expect(await ada.client.call("project.open", { id })).toMatchObject({
      revision: 4,
      files: 1,
      tree: [{ path: "src/a.js", size: 6, revision: 4 }],
    });
    const { revisions } = await ada.client.call("project.revisions", { project_id: id, limit: 2 });
    expect(revisions.map(({ revision, author, summary }) => [revision, author, summary])).toEqual([
      [4, "ada", "Back to revision 1"],
      [3, "ada", "Save src/a.js"],
    ]);
    const { projects } = await ada.client.call("project.list", { limit: 1 });
    expect(projects[0]).toMatchObject({ id, name: "Neu" });
    expect(await ada.client.call("project.delete", { id })).toEqual({ id, deleted: true });
    expect(await failing(ada.client.call("project.open", { id }))).toMatchObject({ code: "NotFound" });
  });

  it("starts from the sample: a greeting with its test", async () => {
    const created = await ada.client.call("project.create", { name: "Sample", template: "sample" });
    expect(created.revision).toBe(1);
    const { tree } = await ada.client.call("project.open", { id: created.id });
    expect(tree.map(({ path }) => path)).toEqual([
      "README.md",
      "package.json",
      "src/greeting.js",
      "src/greeting.test.js",
    ]);
    const read = { project_id: created.id, path: "src/greeting.js" };
    expect((await ada.client.call("fs.read", read)).content).toContain("export function greet(name)");
  });

  it("deleting a project ends its tasks", async () => {
    const id = await make();
    const task_id = await server.dispatch(ada, id);
    await ada.client.call("project.delete", { id });
    expect(await getTask(server.test.database.db, task_id)).toMatchObject({ state: "cancelled" });
  });

  it("[GW-3] lists in pages and refuses a made-up cursor", async () => {
    const bob = await server.user();
    const ids: string[] = [];
    for (let i = 0; i < 5; i++) ids.push((await bob.client.call("project.create", { name: `${i}` })).id);
    const seen: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await bob.client.call("project.list", {
        limit: 2,
        ...(cursor === undefined ? {} : { cursor }),
      });
      seen.push(...page.projects.map(({ id }) => id));
      cursor = page.next_cursor;
    } while (cursor !== undefined);
    expect(seen).toEqual(ids.reverse());
    expect(await failing(bob.client.call("project.list", { cursor: "x" }))).toMatchObject({
      code: "InvalidParams",
    });
  });
});

describe("fs methods", () => {
  it("[SB-fs] read, write, list, move, copy, delete, mkdir", async () => {
    await make();
    const { call } = ada.client;
    expect(await call("fs.write", { project_id, path: "./a//ä.txt", content: "Größe\n" })).toEqual({
      revision: 1,
    });
    expect(await call("fs.read", { project_id, path: "a/ä.txt" })).toEqual({
      content: "Größe\n",
      encoding: "utf8",
      size: 8,
      revision: 1,
    });
    expect(await call("fs.copy", { project_id, src: "a", dest: "b" })).toEqual({ revision: 2 });
    expect(await call("fs.move", { project_id, src: "b/ä.txt", dest: "c.txt" })).toEqual({ revision: 3 });
    expect(await call("fs.mkdir", { project_id, path: "d" })).toEqual({ revision: 4 });
    expect(await call("fs.delete", { project_id, path: "a" })).toEqual({ revision: 5 });
    expect(await call("fs.list", { project_id })).toEqual({
      revision: 5,
      entries: [
        { name: "d", type: "directory", size: 0 },
        { name: "c.txt", type: "file", size: 8 },
      ],
    });
    expect((await call("fs.list", { project_id, path: "a", revision: 1 })).entries).toEqual([
      { name: "ä.txt", type: "file", size: 8 },
    ]);
    expect((await call("fs.read", { project_id, path: "a/ä.txt", revision: 2 })).content).toBe("Größe\n");
  });

  it("[SB-fs] bytes travel as base64, and come back as such", async () => {
    await make();
    const { call } = ada.client;
    const content = Buffer.from([0, 255, 1, 10]).toString("base64");
    await call("fs.write", { project_id, path: "a.bin", content, encoding: "base64" });
    const read = { project_id, path: "a.bin" };
    expect(await call("fs.read", read)).toMatchObject({ content, encoding: "base64", size: 4 });
    expect(await failing(call("fs.read", { ...read, encoding: "utf8" }))).toMatchObject({
      code: "InvalidParams",
    });
    await call("fs.write", { project_id, path: "a.txt", content: "x" });
    expect(await call("fs.read", { project_id, path: "a.txt", encoding: "base64" })).toMatchObject({
      content: "eA==",
    });
    for (const [text, encoding] of [
      ["not base64!", "base64"],
      ["abc", "base64"],
      ["\ud800", "utf8"],
    ] as const) {
      const refusal = await failing(call("fs.write", { project_id, path: "b", content: text, encoding }));
      expect(refusal).toMatchObject({
        code: "InvalidParams",
        details: { issues: [{ path: "params.content" }] },
      });
    }
  });

  it.each(["../x", "/etc/passwd", "C:\\x", "a\0b", ".git/config", "a/../../b", ""])(
    "[SB-fs] refuses the path %j",
    async (path) => {
      await make();
      expect(await failing(ada.client.call("fs.write", { project_id, path, content: "x" }))).toMatchObject({
        code: "InvalidParams",
      });
      expect(await failing(ada.client.call("fs.read", { project_id, path }))).toMatchObject({
        code: "InvalidParams",
      });
    },
  );

  it("[GW-2] somebody else's project and change are not found, for administrators too; viewers only read", async () => {
    const id = await make({ "a.txt": "secret" });
    const change_id = await propose({ "a.txt": "x" }, 1);
    for (const role of ["developer", "admin"] as const) {
      const { client } = await server.user(undefined, role);
      const attempts = [
        client.call("project.open", { id }),
        client.call("project.rename", { id, name: "x" }),
        client.call("project.delete", { id }),
        client.call("project.file.save", { project_id: id, path: "a.txt", content: "x" }),
        client.call("project.revisions", { project_id: id }),
        client.call("project.rollback", { project_id: id, revision: 0 }),
        client.call("fs.read", { project_id: id, path: "a.txt" }),
        client.call("fs.write", { project_id: id, path: "a.txt", content: "x" }),
        client.call("fs.list", { project_id: id }),
        client.call("fs.delete", { project_id: id, path: "a.txt" }),
        client.call("fs.move", { project_id: id, src: "a.txt", dest: "b" }),
        client.call("fs.copy", { project_id: id, src: "a.txt", dest: "b" }),
        client.call("fs.mkdir", { project_id: id, path: "d" }),
        client.call("change.get", { change_id }),
        client.call("change.list", { project_id: id }),
        client.call("change.accept", { change_id }),
        client.call("change.reject", { change_id }),
      ];
      const codes = await Promise.all(attempts.map(async (attempt) => (await failing(attempt)).code));
      expect(codes).toEqual(attempts.map(() => "NotFound"));
      expect((await client.call("project.list", {})).projects).toEqual([]);
    }
    const viewer = await server.user(undefined, "viewer");
    expect(await failing(viewer.client.call("project.create", { name: "x" }))).toMatchObject({
      code: "Forbidden",
    });
    expect((await ada.client.call("fs.read", { project_id: id, path: "a.txt" })).content).toBe("secret");
  });
});

describe("change methods", () => {
  it("[GW-3] get shows every file before and after, accept makes it a revision", async () => {
    await make({ "a.txt": "1\n", "b.txt": "2\n" });
    const change_id = await propose({ "a.txt": "one\n", "b.txt": null, "c.bin": Buffer.from([0]) }, 2);
    const text = (content: string) => ({ content, encoding: "utf8", size: content.length });
    expect(await ada.client.call("change.get", { change_id })).toMatchObject({
      change_id,
      project_id,
      task_id: "tsk_x",
      state: "proposed",
      base_revision: 2,
      current_revision: 2,
      files: [
        { path: "a.txt", status: "modified", before: text("1\n"), after: text("one\n") },
        { path: "b.txt", status: "deleted", before: text("2\n"), after: null },
        {
          path: "c.bin",
          status: "added",
          before: null,
          after: { content: "AA==", encoding: "base64", size: 1 },
        },
      ],
      conflicts: [],
    });
    const accepted = { change_id, state: "accepted", revision: 3 };
    expect(await ada.client.call("change.accept", { change_id })).toEqual(accepted);
    expect(await ada.client.call("change.accept", { change_id })).toEqual(accepted);
    expect(await failing(ada.client.call("change.reject", { change_id }))).toMatchObject({
      code: "Conflict",
    });
    expect(await ada.client.call("change.get", { change_id })).toMatchObject({
      state: "accepted",
      revision: 3,
    });
    const { revisions } = await ada.client.call("project.revisions", { project_id, limit: 1 });
    expect(revisions[0]).toMatchObject({ author: "CodeAgent", summary: "Proposal", change_id });
  });

  it("[GW-3] conflicts show the project's content and are resolved file by file", async () => {
    await make({ "a.txt": "1\n", "b.txt": "b\n" });
    const change_id = await propose({ "a.txt": "mine\n", "b.txt": null }, 2);
    await ada.client.call("fs.write", { project_id, path: "a.txt", content: "theirs\n" });
    await ada.client.call("fs.write", { project_id, path: "b.txt", content: "B\n" });
    const { conflicts, current_revision } = await ada.client.call("change.get", { change_id });
    expect(conflicts).toMatchObject([
      {
        path: "a.txt",
        kind: "content",
        current: { content: "theirs\n" },
        merged: expect.stringContaining("<<<<<<<"),
      },
      { path: "b.txt", kind: "modify_delete", current: { content: "B\n" } },
    ]);
    expect(await failing(ada.client.call("change.accept", { change_id }))).toMatchObject({
      code: "Conflict",
    });
    const resolutions = [
      { path: "a.txt", content: Buffer.from("both\n").toString("base64"), encoding: "base64" as const },
      { path: "b.txt", content: null },
    ];
    const bad = [{ path: "a.txt", content: "?", encoding: "base64" as const }];
    expect(await failing(ada.client.call("change.accept", { change_id, resolutions: bad }))).toMatchObject({
      details: { issues: [{ path: "params.resolutions[0].content" }] },
    });
    expect(
      await failing(ada.client.call("change.accept", { change_id, resolutions, current_revision: 3 })),
    ).toMatchObject({ code: "Conflict" });
    expect(
      await ada.client.call("change.accept", { change_id, resolutions, current_revision }),
    ).toMatchObject({
      revision: 5,
    });
    expect((await ada.client.call("fs.read", { project_id, path: "a.txt" })).content).toBe("both\n");
  });

  it("a huge change is shown in part, and accepted whole", async () => {
    await make({ "a.txt": "1\n" });
    const files = Object.fromEntries(
      Array.from({ length: 12 }, (_, i) => [
        `f${String(i).padStart(2, "0")}`,
        String.fromCharCode(97 + i).repeat(1_000_000),
      ]),
    );
    const change_id = await propose({ ...files, huge: "h".repeat(2_000_000) }, 1);
    const { files: shown } = await ada.client.call("change.get", { change_id });
    const truncated = shown.filter(({ after }) => after?.truncated === true).map(({ path }) => path);
    expect(truncated).toEqual(["f08", "f09", "f10", "f11", "huge"]);
    expect(shown.at(-1)?.after).toEqual({
      content: "",
      encoding: "base64",
      size: 2_000_000,
      truncated: true,
    });
    await ada.client.call("change.accept", { change_id });
    expect((await ada.client.call("fs.read", { project_id, path: "huge" })).size).toBe(2_000_000);
  });

  it("lists a project's changes by state, and rejects", async () => {
    await make({ "a.txt": "1\n" });
    const ids = [
      await propose({ "a.txt": "2" }, 1),
      await propose({ "a.txt": "3" }, 1),
      await propose({ b: "4" }, 1),
    ];
    const [first = "", second = ""] = ids;
    expect(await ada.client.call("change.reject", { change_id: first })).toEqual({
      change_id: first,
      state: "rejected",
    });
    const page = await ada.client.call("change.list", { project_id, limit: 2 });
    expect(page.changes.map(({ change_id }) => change_id)).toEqual([ids[2], second]);
    const cursor = page.next_cursor ?? "";
    expect((await ada.client.call("change.list", { project_id, limit: 2, cursor })).changes).toMatchObject([
      { change_id: first, state: "rejected", decided_at: expect.any(String) },
    ]);
    const proposed = await ada.client.call("change.list", { project_id, state: "proposed" });
    expect(proposed.changes).toHaveLength(2);
  });
});
