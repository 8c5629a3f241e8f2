import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { buffer } from "node:stream/consumers";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { collectBlobs, commitEdits, readTree } from "#database/projects/index.ts";
import { type ApiServer, type ApiUser, apiServer } from "#tests/support/api-server.ts";
import { directoryZip, patched, renamed, zipOf } from "#tests/support/zips.ts";

vi.setConfig({ expect: { poll: { timeout: 30_000 } } });

const PREFIX = `cds-zip-test-${process.pid}-`;
const LIMITS = {
  CDS_MAX_FILE_BYTES: String(200 * 1024),
  CDS_MAX_PROJECT_BYTES: String(1024 * 1024),
  CDS_MAX_PROJECT_FILES: "60",
  CDS_MAX_ARCHIVE_BYTES: String(512 * 1024),
  TEMP_DIR_PREFIX: PREFIX,
};

let server: ApiServer;
let ada: ApiUser;
beforeAll(async () => {
  server = await apiServer(LIMITS);
  ada = await server.user();
});
afterAll(() => server?.[Symbol.asyncDispose]());

const send = async (
  id: string,
  body: Buffer,
  options: { query?: string; token?: string; type?: string } = {},
) => {
  const answer = await fetch(`${server.url}/projects/${id}/import${options.query ?? ""}`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${options.token ?? ada.token}`,
      "content-type": options.type ?? "application/zip",
    },
    body: new Uint8Array(body),
  });
  return { status: answer.status, body: JSON.parse(await answer.text()) };
};

const download = (id: string, query = "", token = ada.token) =>
  fetch(`${server.url}/projects/${id}/export.zip${query}`, { headers: { authorization: `Bearer ${token}` } });

const namesOf = async (id: string) => (await readTree(server.test.database.db, id)).map(({ path }) => path);

describe("project archives", () => {
  it("[GW-3] what is exported and imported again is the same tree, umlauts, bytes and executable bits", async () => {
    const id = await server.project(ada);
    const { database } = server.test;
    const edits = [
      { path: "README.md", content: Buffer.from("# Größe\r\n") },
      { path: "src/ä ö ü/ß.txt", content: Buffer.from("") },
      { path: "日本/🚀.bin", content: Buffer.from([0, 255, 128, 10, 13]) },
      { path: "run.sh", content: Buffer.from("#!/bin/sh\n"), executable: true },
    ];
    const who = {
      project_id: id,
      author: "ada",
      kind: "edit",
      summary: "x",
      quota: server.config.quota,
    } as const;
    await commitEdits(database, { ...who, edits });
    const answer = await download(id);
    expect(answer.status).toBe(200);
    expect(answer.headers.get("content-type")).toBe("application/zip");
    expect(answer.headers.get("content-disposition")).toBe(
      `attachment; filename="Test.zip"; filename*=UTF-8''Test.zip`,
    );
    const zip = Buffer.from(await answer.arrayBuffer());
    const copy = await server.project(ada);
    expect(await send(copy, zip)).toEqual({ status: 200, body: { revision: 1, files: 4 } });
    const bare = async (project: string) =>
      (await readTree(database.db, project)).map(({ revision: _, ...file }) => file);
    expect(await bare(copy)).toEqual(await bare(id));
    expect(await send(copy, zip)).toEqual({ status: 200, body: { revision: 1, files: 4 } });
  });

  it("[GW-3] exports an older revision and an empty project, and names the file after the project", async () => {
    const { id } = await ada.client.call("project.create", { name: 'Größe "1/2"; 100%' });
    await ada.client.call("fs.write", { project_id: id, path: "a.txt", content: "1" });
    await ada.client.call("fs.write", { project_id: id, path: "b.txt", content: "2" });
    const answer = await download(id, "?revision=1");
    expect(answer.headers.get("content-disposition")).toBe(
      `attachment; filename="Gr--e -1-2-- 100-.zip"; filename*=UTF-8''Gr%C3%B6%C3%9Fe%20-1-2-%3B%20100%25.zip`,
    );
    const copy = await server.project(ada);
    expect((await send(copy, Buffer.from(await answer.arrayBuffer()))).body).toEqual({
      revision: 1,
      files: 1,
    });
    const empty = Buffer.from(await (await download(id, "?revision=0")).arrayBuffer());
    expect((await send(copy, empty)).body).toEqual({ revision: 1, files: 0 });
    expect((await send(copy, empty, { query: "?replace=1" })).body).toEqual({ revision: 2, files: 0 });
    expect(await namesOf(copy)).toEqual([]);
    expect((await download(id, "?revision=9")).status).toBe(404);
    expect((await download(id, "?revision=x")).status).toBe(400);
  });

  it("adds to what is there, or replaces it when asked to", async () => {
    const id = await server.project(ada);
    await send(id, await zipOf({ "a.txt": "1", "d/b.txt": "2" }));
    expect((await send(id, await zipOf({ "a.txt": "one" }))).body).toEqual({ revision: 2, files: 1 });
    expect(await namesOf(id)).toEqual(["a.txt", "d/b.txt"]);
    const replacing = await send(id, await zipOf({ d: "now a file" }), { query: "?replace=1" });
    expect(replacing.body).toEqual({ revision: 3, files: 1 });
    expect(await namesOf(id)).toEqual(["d"]);
    expect(await send(id, await zipOf({ "d/x": "1" }))).toMatchObject({
      status: 409,
      body: { error: { code: "Conflict", conflicts: [{ path: "d/x", kind: "file_directory" }] } },
    });
    expect((await send(id, await zipOf({}), { query: "?replace=maybe" })).status).toBe(400);
  });

  it("reads names as other programs write them: UTF-8 without saying so, and backslashes", async () => {
    const id = await server.project(ada);
    const flagged = await zipOf({ "ü.txt": "1" });
    const unflagged = patched(flagged, 8, 0x0008);
    expect((await send(id, unflagged)).body).toEqual({ revision: 1, files: 1 });
    expect(await namesOf(id)).toEqual(["ü.txt"]);
    await send(id, renamed(await zipOf({ "dir-file.txt": "1" }), "dir-file.txt", "dir\\file.txt"));
    expect(await namesOf(id)).toEqual(["dir/file.txt", "ü.txt"]);
    const latin = patched(await zipOf({ "x.txt": "1" }), 8, 0x0008);
    // In code page 437 this byte is an ü.
    latin.set([0x81], latin.indexOf(Buffer.from([0x50, 0x4b, 1, 2])) + 46);
    expect((await send(id, latin)).status).toBe(200);
    expect(await namesOf(id)).toContain("ü.txt");
  });

  it("takes empty directories for nothing and the tree's own root for itself", async () => {
    const id = await server.project(ada);
    expect((await send(id, await directoryZip("empty/"))).body).toEqual({ revision: 0, files: 0 });
    expect((await send(id, renamed(await directoryZip("x/"), "x/", "./"))).body).toEqual({
      revision: 0,
      files: 0,
    });
  });

  it("refuses an upload that is too long or of another type", async () => {
    const id = await server.project(ada);
    for (const size of [513 * 1024, 3 * 1024 * 1024]) {
      expect(await send(id, Buffer.alloc(size))).toMatchObject({
        status: 413,
        body: { error: { code: "PayloadTooLarge" } },
      });
    }
    const chunks = new ReadableStream({
      pull(controller) {
        controller.enqueue(new Uint8Array(64 * 1024));
      },
    });
    const endless = fetch(`${server.url}/projects/${id}/import`, {
      method: "POST",
      headers: { authorization: `Bearer ${ada.token}`, "content-type": "application/zip" },
      body: chunks,
      duplex: "half",
    } as RequestInit);
    const outcome = await endless.then(
      (answer) => answer.status,
      () => "cut off",
    );
    expect([413, "cut off"]).toContain(outcome);
    const wrong = await send(id, Buffer.from("{}"), { type: "application/json" });
    expect(wrong.status).toBe(400);
  });

  it("an upload that breaks off leaves nothing behind", async () => {
    const id = await server.project(ada);
    const controller = new AbortController();
    let sent = 0;
    const body = new ReadableStream({
      async pull(stream) {
        stream.enqueue(new Uint8Array(32 * 1024));
        sent += 1;
        if (sent === 4) controller.abort();
        await new Promise((resolve) => setTimeout(resolve, 20));
      },
    });
    const request = fetch(`${server.url}/projects/${id}/import`, {
      method: "POST",
      headers: { authorization: `Bearer ${ada.token}`, "content-type": "application/zip" },
      body,
      duplex: "half",
      signal: controller.signal,
    } as RequestInit);
    await expect(request).rejects.toThrow();
    await expect.poll(uploads).toEqual([]);
    expect(await namesOf(id)).toEqual([]);
  });

  it("[GW-2] asks who it is: no token, viewers, strangers and administrators get nothing", async () => {
    const id = await server.project(ada);
    const zip = await zipOf({ a: "1" });
    const [viewer, stranger, admin] = [
      await server.user(undefined, "viewer"),
      await server.user(),
      await server.user(undefined, "admin"),
    ];
    expect((await send(id, zip, { token: "none" })).status).toBe(401);
    expect((await download(id, "", "none")).status).toBe(401);
    expect((await send(id, zip, { token: viewer.token })).status).toBe(403);
    for (const { token } of [stranger, admin]) {
      expect((await send(id, zip, { token })).status).toBe(404);
      expect((await download(id, "", token)).status).toBe(404);
    }
    expect((await download(id, `?token=${ada.token}`)).status).toBe(400);
    expect((await download("prj_none")).status).toBe(404);
    expect(await namesOf(id)).toEqual([]);
    expect(uploads()).toEqual([]);
  });

  it("an export fails in the middle rather than being cut silently", async () => {
    const id = await server.project(ada);
    await ada.client.call("fs.write", { project_id: id, path: "a.txt", content: "will be gone" });
    const { database } = server.test;
    const tree = await readTree(database.db, id);
    const { writeZip } = await import("./write-zip.ts");
    await ada.client.call("project.delete", { id });
    await database.db
      .updateTable("blobs")
      .set({ touched_at: new Date(0) })
      .where(
        "hash",
        "in",
        tree.map(({ blob_hash }) => blob_hash),
      )
      .execute();
    await collectBlobs(database.db);
    await expect(buffer(writeZip(database.db, tree, new Date()))).rejects.toThrow(/missing/);
  });

  it("a reader that leaves ends the export", async () => {
    const id = await server.project(ada);
    const { database } = server.test;
    const noise = (seed: number) =>
      Buffer.from(Array.from({ length: 150_000 }, (_, i) => (i * seed * 31 + (i >> 3)) & 255));
    const edits = [3, 5, 7, 11, 13].map((seed) => ({ path: `${seed}.bin`, content: noise(seed) }));
    const who = {
      project_id: id,
      author: "ada",
      kind: "edit",
      summary: "x",
      quota: server.config.quota,
    } as const;
    await commitEdits(database, { ...who, edits });
    const answer = await download(id);
    await answer.body?.cancel();
    // All places are given back: 20 may be open per user.
    for (let i = 0; i < 45; i++) {
      const again = await download(id);
      expect(again.status).toBe(200);
      await again.body?.cancel();
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  });

  it("[GW-3] takes what git makes of a working copy, with its executable bits", async () => {
    const id = await server.project(ada);
    const directory = mkdtempSync(join(tmpdir(), PREFIX));
    try {
      for (const [path, content] of [
        ["src/ä.txt", "1"],
        ["bin/run.sh", "#!/bin/sh\n"],
      ] as const) {
        mkdirSync(dirname(join(directory, path)), { recursive: true });
        writeFileSync(join(directory, path), content, { mode: path.startsWith("bin") ? 0o755 : 0o644 });
      }
      const git = (...args: string[]) =>
        execFileSync("git", ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", ...args], {
          cwd: directory,
        });
      git("init", "-q");
      git("add", ".");
      git("commit", "-q", "-m", "x");
      expect((await send(id, git("archive", "--format=zip", "HEAD"))).body).toEqual({
        revision: 1,
        files: 2,
      });
      const tree = await readTree(server.test.database.db, id);
      expect(tree.map(({ path, executable }) => [path, executable])).toEqual([
        ["bin/run.sh", true],
        ["src/ä.txt", false],
      ]);
      symlinkSync("/etc/passwd", join(directory, "src/link"));
      git("add", ".");
      git("commit", "-q", "-m", "y");
      expect((await send(id, git("archive", "--format=zip", "HEAD"))).body.error.message).toContain(
        "src/link",
      );
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});

function uploads(): string[] {
  return readdirSync(tmpdir()).filter((name) => name.startsWith(`${PREFIX}import-`));
}
