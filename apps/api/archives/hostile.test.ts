import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readTree } from "#database/projects/index.ts";
import { type ApiServer, type ApiUser, apiServer } from "#tests/support/api-server.ts";
import { broken, directoryZip, manyDirectories, patched, renamed, zipOf } from "#tests/support/zips.ts";

let server: ApiServer;
let ada: ApiUser;
beforeAll(async () => {
  server = await apiServer({
    CDS_MAX_FILE_BYTES: String(200 * 1024),
    CDS_MAX_PROJECT_BYTES: String(1024 * 1024),
    CDS_MAX_PROJECT_FILES: "60",
  });
  ada = await server.user();
});
afterAll(() => server?.[Symbol.asyncDispose]());

const replaceBy = async (id: string, body: Buffer) => {
  const answer = await fetch(`${server.url}/projects/${id}/import?replace=1`, {
    method: "POST",
    headers: { authorization: `Bearer ${ada.token}`, "content-type": "application/zip" },
    body: new Uint8Array(body),
  });
  return { status: answer.status, body: JSON.parse(await answer.text()) };
};

const namesOf = async (id: string) => (await readTree(server.test.database.db, id)).map(({ path }) => path);

describe("hostile and broken archives", () => {
  const attacks: [string, () => Promise<Buffer> | Buffer, string, RegExp][] = [
    [
      "../",
      async () => renamed(await zipOf({ "xx/evil.txt": "1" }), "xx/evil.txt", "../evil.txt"),
      "InvalidArchive",
      /\.\.\/evil/,
    ],
    [
      "a/../../",
      async () => renamed(await zipOf({ "a/bb/cc/e": "1" }), "a/bb/cc/e", "a/../../e"),
      "InvalidArchive",
      /\.\./,
    ],
    [
      "absolute",
      async () => renamed(await zipOf({ "xetc/passwd": "1" }), "xetc/passwd", "/etc/passwd"),
      "InvalidArchive",
      /absolute/,
    ],
    [
      "drive",
      async () => renamed(await zipOf({ "Cx/evil": "1" }), "Cx/evil", "C:/evil"),
      "InvalidArchive",
      /C:/,
    ],
    [
      "..\\",
      async () => renamed(await zipOf({ "xx-evil": "1" }), "xx-evil", "..\\evil"),
      "InvalidArchive",
      /\.\./,
    ],
    [
      "control characters",
      async () => renamed(await zipOf({ axb: "1" }), "axb", "a\u0007b"),
      "InvalidArchive",
      /control/,
    ],
    [".git", () => zipOf({ ".git/hooks/post-checkout": "1" }), "InvalidArchive", /\.git/],
    [".git as a directory", () => directoryZip(".git/"), "InvalidArchive", /\.git/],
    ["a file and a directory", () => zipOf({ a: "1", "a/b": "2" }), "Conflict", /"a"/],
    [
      "twice",
      async () => renamed(await zipOf({ "aa.txt": "1", "ab.txt": "2" }), "ab.txt", "aa.txt"),
      "InvalidArchive",
      /twice/,
    ],
    [
      "twice, composed differently",
      () => zipOf({ "\u00fc": "1", "u\u0308": "2" }),
      "InvalidArchive",
      /twice/,
    ],
    ["a symbolic link", () => zipOf({ link: "/etc/passwd" }, 0o120777), "InvalidArchive", /link/],
    ["a device", () => zipOf({ dev: "" }, 0o020666), "InvalidArchive", /device/],
    ["a directory's mode", () => zipOf({ dir: "" }, 0o040755), "InvalidArchive", /directory/],
    [
      "encrypted",
      async () => patched(await zipOf({ a: "secret" }), 8, 0x0809),
      "InvalidArchive",
      /encrypted/,
    ],
    [
      "strongly encrypted",
      async () => patched(await zipOf({ a: "secret" }), 8, 0x0841),
      "InvalidArchive",
      /encryption/,
    ],
    [
      "another compression",
      async () => patched(await zipOf({ a: "x" }), 10, 14),
      "InvalidArchive",
      /compressed/,
    ],
    ["no zip at all", () => Buffer.from("this is no archive"), "InvalidArchive", /end of central/i],
    ["nothing", () => Buffer.alloc(0), "InvalidArchive", /end of central/i],
    ["cut off", async () => (await zipOf({ a: "x".repeat(5000) })).subarray(0, 60), "InvalidArchive", /./],
    [
      "a wrong checksum",
      async () => patched(await zipOf({ a: "hello" }), 16, 1),
      "InvalidArchive",
      /checksum/,
    ],
    ["broken data", async () => broken(await zipOf({ a: "hello ".repeat(500) })), "InvalidArchive", /"a"/],
    ["a larger file than allowed", () => zipOf({ big: "x".repeat(200 * 1024 + 1) }), "QuotaExceeded", /big/],
    [
      "a bomb of many files",
      () => zipOf(Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`f${i}`, "\0".repeat(100_000)]))),
      "QuotaExceeded",
      /together/,
    ],
    [
      "a bomb that lies",
      async () => patched(patched(await zipOf({ big: "x".repeat(190 * 1024) }), 24, 10), 26, 0),
      "InvalidArchive",
      /big/,
    ],
    [
      "too many files",
      () => zipOf(Object.fromEntries(Array.from({ length: 61 }, (_, i) => [`f${i}`, ""]))),
      "QuotaExceeded",
      /60/,
    ],
    ["too many directories", () => manyDirectories(130), "QuotaExceeded", /60/],
  ];

  it.each(attacks)(
    "[GW-3] refuses an archive with %s, and changes nothing",
    async (_name, make, code, message) => {
      const id = await server.project(ada);
      await ada.client.call("fs.write", { project_id: id, path: "kept.txt", content: "kept" });
      const answer = await replaceBy(id, await make());
      expect(answer.body.error?.code).toBe(code);
      expect(answer.body.error.message).toMatch(message);
      expect(answer.status).toBeGreaterThanOrEqual(400);
      expect(answer.status).toBeLessThan(500);
      expect(await namesOf(id)).toEqual(["kept.txt"]);
    },
  );
});
