import { spawn } from "node:child_process";
import { once } from "node:events";
import { copyFile, mkdir, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { type Downloads, partSize, startDownloads, TINY } from "#tests/support/downloads.ts";
import { ggufBytes, sha256, startHub, type TestHub } from "#tests/support/hub.ts";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const SIZE = TINY.length;
const DATA = TINY;
const OTHER = ggufBytes(SIZE, 7);

async function opened(files: Record<string, Buffer> = { "tiny.gguf": DATA }): Promise<[TestHub, Downloads]> {
  const hub = await startHub(files);
  return [hub, await startDownloads(hub)];
}

describe("downloading a model", () => {
  it("takes it, verifies it, tells how far it is, and leaves nothing else behind", async () => {
    const [hub, downloads] = await opened({ "sub/tiny.gguf": DATA });
    await using _hub = hub;
    await using _downloads = downloads;
    const model = await downloads.start("sub/tiny.gguf");
    expect(model).toEqual({
      path: join(downloads.directory, "tiny.gguf"),
      file: "tiny.gguf",
      bytes: SIZE,
      sha256: sha256(DATA),
      source_url: `${hub.url}/acme/tiny/resolve/main/sub/tiny.gguf`,
    });
    expect((await readFile(model.path)).equals(DATA)).toBe(true);
    expect(await readdir(downloads.directory)).toEqual(["tiny.gguf"]);
    expect(hub.ranges()).toEqual(["bytes=0-"]);
    expect(downloads.progress[0]).toEqual({ bytes: 0, total: 0, bytes_per_second: 0, state: "resolving" });
    const last = { bytes: SIZE, total: SIZE, bytes_per_second: expect.any(Number), state: "done" };
    expect(downloads.progress.at(-1)).toEqual(last);
    expect(downloads.progress.filter(({ state }) => state === "done")).toHaveLength(1);
  });

  it("makes the directory, and finds a revision with a slash", async () => {
    const [hub, downloads] = await opened();
    await using _hub = hub;
    await using _downloads = downloads;
    const directory = join(downloads.directory, "new", "models");
    const url = `${hub.url}/acme/tiny/resolve/refs%2Fpr%2F1/tiny.gguf`;
    const model = await downloads.start(url, { directory });
    expect(model.path).toBe(join(directory, "tiny.gguf"));
    expect(hub.requests.map(({ path }) => path)).toEqual([
      "/api/models/acme/tiny/paths-info/refs%2Fpr%2F1",
      "/acme/tiny/resolve/refs%2Fpr%2F1/tiny.gguf",
      `/cdn/${sha256(DATA)}`,
    ]);
  });

  it("of the very file that is there asks nothing but what it must be", async () => {
    const [hub, downloads] = await opened();
    await using _hub = hub;
    await using _downloads = downloads;
    const first = await downloads.start("tiny.gguf");
    // As a process leaves it that is killed between the last two steps.
    await copyFile(first.path, `${first.path}.part`);
    expect(await downloads.start("tiny.gguf")).toEqual(first);
    expect(hub.ranges()).toHaveLength(1);
    expect(await readdir(downloads.directory)).toEqual(["tiny.gguf"]);
  });

  it("overwrites nothing", async () => {
    const [hub, downloads] = await opened();
    await using _hub = hub;
    await using _downloads = downloads;
    const conflict = { code: "Conflict", message: "Another file of that name is in the models directory." };
    const path = join(downloads.directory, "tiny.gguf");
    for (const there of [OTHER, Buffer.from("short"), Buffer.alloc(0)]) {
      await writeFile(path, there);
      expect(await downloads.fail("tiny.gguf")).toMatchObject(conflict);
      expect((await readFile(path)).equals(there)).toBe(true);
    }
    const elsewhere = join(downloads.directory, "elsewhere");
    await mkdir(elsewhere);
    const inner = join(elsewhere, "inner");
    await mkdir(inner);
    await writeFile(join(elsewhere, "real"), DATA);
    await symlink(join(elsewhere, "real"), join(inner, "tiny.gguf"));
    expect(await downloads.fail("tiny.gguf", { directory: inner })).toMatchObject(conflict);
    await mkdir(join(elsewhere, "tiny.gguf"));
    expect(await downloads.fail("tiny.gguf", { directory: elsewhere })).toMatchObject(conflict);
    expect(hub.ranges()).toEqual([]);
  });

  it("not even what appears while it downloads", async () => {
    const [hub, downloads] = await opened();
    await using _hub = hub;
    await using _downloads = downloads;
    hub.faults.hold = { after: 100_000 };
    const failure = downloads.fail("tiny.gguf", { hub: hub.config({ CDS_DOWNLOAD_IDLE_TIMEOUT_MS: "200" }) });
    await expect.poll(() => partSize(downloads)).toBe(100_000);
    const path = join(downloads.directory, "tiny.gguf");
    await writeFile(path, "somebody else's");
    delete hub.faults.hold;
    expect(await failure).toMatchObject({ code: "Conflict" });
    expect(await readFile(path, "utf8")).toBe("somebody else's");
  });
});

describe("going on with a part", () => {
  it("after a kill -9: only the rest is asked for", async () => {
    const [hub, downloads] = await opened();
    await using _hub = hub;
    await using _downloads = downloads;
    hub.faults.hold = { after: 250_000 };
    const program = join(ROOT, "tests/support/download-child.ts");
    const child = spawn(process.execPath, [program, downloads.directory, "tiny.gguf"], {
      cwd: ROOT,
      env: { ...process.env, HF_ENDPOINT: hub.url },
      stdio: "inherit",
    });
    const closed = once(child, "close");
    try {
      await expect.poll(() => partSize(downloads)).toBe(250_000);
      // While it lives the file is its own.
      expect(await downloads.fail("tiny.gguf")).toMatchObject({
        code: "Conflict",
        message: "That file is being downloaded already.",
      });
    } finally {
      child.kill("SIGKILL");
      await closed;
    }
    delete hub.faults.hold;
    const model = await downloads.start("tiny.gguf");
    expect(hub.ranges()).toEqual(["bytes=0-", "bytes=250000-"]);
    expect((await readFile(model.path)).equals(DATA)).toBe(true);
    expect(await readdir(downloads.directory)).toEqual(["tiny.gguf"]);
  });

  it("after a cancel, which ends it at once and keeps what is there", async () => {
    const [hub, downloads] = await opened();
    await using _hub = hub;
    await using _downloads = downloads;
    hub.faults.hold = { after: 300_000 };
    const cancel = new AbortController();
    const failure = downloads.fail("tiny.gguf", { signal: cancel.signal });
    await expect.poll(() => partSize(downloads)).toBe(300_000);
    cancel.abort();
    expect(await failure).toMatchObject({ code: "Cancelled" });
    expect((await readdir(downloads.directory)).sort()).toEqual(["tiny.gguf.part", "tiny.gguf.part.json"]);
    delete hub.faults.hold;
    await downloads.start("tiny.gguf");
    expect(hub.ranges()).toEqual(["bytes=0-", "bytes=300000-"]);
  });

  it("that is whole already: nothing is asked for", async () => {
    const [hub, downloads] = await opened();
    await using _hub = hub;
    await using _downloads = downloads;
    await leaveBehind(downloads, DATA, { oid: sha256(DATA), size: SIZE });
    await downloads.start("tiny.gguf");
    expect(hub.ranges()).toEqual([]);
    expect(await readdir(downloads.directory)).toEqual(["tiny.gguf"]);
  });

  it.each<[string, Buffer, unknown]>([
    ["is of another file", OTHER.subarray(0, 1000), { oid: sha256(OTHER), size: SIZE }],
    ["is of another size", DATA.subarray(0, 1000), { oid: sha256(DATA), size: SIZE + 1 }],
    ["is larger than its file", Buffer.concat([DATA, DATA]), { oid: sha256(DATA), size: SIZE }],
    ["has no note", DATA.subarray(0, 1000), undefined],
    ["has a broken note", DATA.subarray(0, 1000), '{"oid":'],
    ["has a note of another kind", DATA.subarray(0, 1000), "[]"],
  ])("that %s begins anew", async (_name, bytes, note) => {
    const [hub, downloads] = await opened();
    await using _hub = hub;
    await using _downloads = downloads;
    await leaveBehind(downloads, bytes, note);
    const model = await downloads.start("tiny.gguf");
    expect(hub.ranges()).toEqual(["bytes=0-"]);
    expect((await readFile(model.path)).equals(DATA)).toBe(true);
  });

  it("that was changed on the disk: found out at the end, removed, and right the next time", async () => {
    const [hub, downloads] = await opened();
    await using _hub = hub;
    await using _downloads = downloads;
    await leaveBehind(downloads, Buffer.alloc(1000), { oid: sha256(DATA), size: SIZE });
    expect(await downloads.fail("tiny.gguf")).toMatchObject({
      code: "DownloadFailed",
      message: expect.stringContaining("sha256 differs"),
    });
    expect(await readdir(downloads.directory)).toEqual([]);
    await downloads.start("tiny.gguf");
    expect(hub.ranges()).toEqual(["bytes=1000-", "bytes=0-"]);
  });

  it("follows no symbolic link to write into", async () => {
    const [hub, downloads] = await opened();
    await using _hub = hub;
    await using _downloads = downloads;
    const victim = join(downloads.directory, "victim");
    await writeFile(victim, "mine");
    await symlink(victim, join(downloads.directory, "tiny.gguf.part"));
    const note = JSON.stringify({ oid: sha256(DATA), size: SIZE });
    await writeFile(join(downloads.directory, "tiny.gguf.part.json"), note);
    await downloads.start("tiny.gguf");
    expect(await readFile(victim, "utf8")).toBe("mine");
    expect((await stat(join(downloads.directory, "tiny.gguf"))).size).toBe(SIZE);
  });
});

describe("several downloads", () => {
  it("of one file: the second is refused while the first goes on, by any way to the directory", async () => {
    const [hub, downloads] = await opened();
    await using _hub = hub;
    await using _downloads = downloads;
    hub.faults.hold = { after: 100_000 };
    const cancel = new AbortController();
    const first = downloads.fail("tiny.gguf", { signal: cancel.signal });
    await expect.poll(() => partSize(downloads)).toBe(100_000);
    const link = join(downloads.directory, "link");
    await symlink(".", link);
    for (const directory of [downloads.directory, `${downloads.directory}/./`, link]) {
      expect(await downloads.fail("tiny.gguf", { directory })).toMatchObject({
        code: "Conflict",
        message: "That file is being downloaded already.",
      });
    }
    cancel.abort();
    expect(await first).toMatchObject({ code: "Cancelled" });
    delete hub.faults.hold;
    await downloads.start("tiny.gguf");
    expect(hub.ranges()).toEqual(["bytes=0-", "bytes=100000-"]);
  });

  it("started at the same moment: one is refused, one succeeds", async () => {
    const [hub, downloads] = await opened();
    await using _hub = hub;
    await using _downloads = downloads;
    const both = await Promise.allSettled([downloads.start("tiny.gguf"), downloads.start("tiny.gguf")]);
    expect(both.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    const refused = both.find((item) => item.status === "rejected");
    expect(refused?.reason).toMatchObject({ code: "Conflict" });
  });

  it("of several files go on beside each other", async () => {
    const [hub, downloads] = await opened({ "a.gguf": DATA, "b.gguf": OTHER });
    await using _hub = hub;
    await using _downloads = downloads;
    const models = await Promise.all([downloads.start("a.gguf"), downloads.start("b.gguf")]);
    expect(models.map(({ sha256 }) => sha256)).toEqual([sha256(DATA), sha256(OTHER)]);
    expect((await readdir(downloads.directory)).sort()).toEqual(["a.gguf", "b.gguf"]);
  });
});

/** What an earlier download leaves behind. */
async function leaveBehind({ directory }: Downloads, bytes: Buffer, note: unknown): Promise<void> {
  await writeFile(join(directory, "tiny.gguf.part"), bytes);
  if (note === undefined) return;
  const text = typeof note === "string" ? note : JSON.stringify(note);
  await writeFile(join(directory, "tiny.gguf.part.json"), text);
}
