import { execFileSync } from "node:child_process";
import {
  chmod,
  link,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Jail } from "./jail.ts";

const MAX = 1024 * 1024;
const isRoot = process.getuid?.() === 0;

let top: string;
let root: string;
let jail: Jail;
beforeEach(async () => {
  top = await mkdtemp(join(tmpdir(), "cds-jail-"));
  root = join(top, "root");
  await mkdir(root);
  await mkdir(join(top, "outside"));
  await writeFile(join(top, "outside", "secret"), "the secret");
  jail = await Jail.open(root);
});
afterEach(async () => {
  await jail.close();
  await rm(top, { recursive: true, force: true });
});

const code = (name: string) => ({ code: name });
const put = (path: string, content = "x") => writeFile(join(root, path), content);

describe("the jail", () => {
  it("[SB-fs] writes, reads, lists and removes", async () => {
    await jail.write("a/b/c.txt", Buffer.from("hello"));
    await jail.write("a/run.sh", Buffer.from("#!"), { executable: true });
    await jail.write("./a//b/./c.txt", Buffer.from("hello again"));
    expect((await jail.read("a/b/c.txt", MAX)).content.toString()).toBe("hello again");
    expect(await jail.read("a/run.sh", MAX)).toMatchObject({ executable: true });
    expect((await stat(join(root, "a/run.sh"))).mode & 0o777).toBe(0o755);
    await jail.mkdir("a/empty");
    await jail.mkdir("a/empty");
    expect(await jail.list("a")).toEqual([
      { name: "b", kind: "directory", size: 0, executable: false },
      { name: "empty", kind: "directory", size: 0, executable: false },
      { name: "run.sh", kind: "file", size: 2, executable: true },
    ]);
    expect(await readdir(join(root, "a"))).toHaveLength(3);
    expect(await jail.remove("a/run.sh")).toBe(true);
    expect(await jail.remove("a")).toBe(true);
    expect(await jail.remove("a")).toBe(false);
    expect(await jail.remove("a/b/c")).toBe(false);
    expect(await jail.list("")).toEqual([]);
  });

  it.each([
    "/etc/passwd",
    "../outside/secret",
    "a/../../outside/secret",
    "a\0b",
    "\ud800",
    `${"x".repeat(256)}`,
  ])("[SB-fs] refuses the path %j", async (path) => {
    await expect(jail.read(path, MAX)).rejects.toMatchObject(code("InvalidParams"));
    await expect(jail.write(path, Buffer.from("x"))).rejects.toMatchObject(code("InvalidParams"));
    await expect(jail.remove(path)).rejects.toMatchObject(code("InvalidParams"));
    await expect(jail.mkdir(path)).rejects.toMatchObject(code("InvalidParams"));
    await expect(jail.list(path)).rejects.toMatchObject(code("InvalidParams"));
  });

  it("[SB-fs] refuses paths too long, and the root where a file is meant", async () => {
    await expect(jail.read("x/".repeat(2100), MAX)).rejects.toMatchObject(code("InvalidParams"));
    await expect(jail.read("", MAX)).rejects.toMatchObject(code("InvalidParams"));
    await expect(jail.remove(".")).rejects.toMatchObject(code("InvalidParams"));
  });

  it("[SB-fs] follows no link: absolute, relative, chained, to a directory or a file", async () => {
    await symlink(join(top, "outside"), join(root, "abs"));
    await symlink("../outside", join(root, "rel"));
    await symlink("rel", join(root, "chain"));
    await symlink("../outside/secret", join(root, "file"));
    for (const name of ["abs", "rel", "chain"]) {
      await expect(jail.read(`${name}/secret`, MAX)).rejects.toMatchObject({ name: "AppError" });
      await expect(jail.write(`${name}/new`, Buffer.from("x"))).rejects.toMatchObject({ name: "AppError" });
      await expect(jail.mkdir(`${name}/new`)).rejects.toMatchObject({ name: "AppError" });
      await expect(jail.list(name)).rejects.toMatchObject({ name: "AppError" });
      await expect(jail.remove(`${name}/secret`)).rejects.toMatchObject({ name: "AppError" });
    }
    await expect(jail.read("file", MAX)).rejects.toMatchObject(code("Forbidden"));
    await jail.write("file", Buffer.from("mine"));
    expect((await lstat(join(root, "file"))).isFile()).toBe(true);
    expect(await jail.remove("abs")).toBe(true);
    expect(await readFile(join(top, "outside", "secret"), "utf8")).toBe("the secret");
    expect(await readdir(join(top, "outside"))).toEqual(["secret"]);
    await symlink(root, join(top, "root-link"));
    await expect(Jail.open(join(top, "root-link"))).rejects.toMatchObject({ name: "AppError" });
    await expect(Jail.open(join(top, "none"))).rejects.toMatchObject(code("NotFound"));
  });

  it("[SB-fs] refuses hard links, FIFOs, sockets and directories as files, without waiting", async () => {
    await link(join(top, "outside", "secret"), join(root, "hard"));
    execFileSync("mkfifo", [join(root, "fifo")]);
    await mkdir(join(root, "dir"));
    const socket = createServer().listen(join(root, "sock"));
    await expect(jail.read("hard", MAX)).rejects.toMatchObject(code("Forbidden"));
    await expect(jail.read("fifo", MAX)).rejects.toMatchObject(code("Forbidden"));
    await expect(jail.read("sock", MAX)).rejects.toMatchObject(code("Forbidden"));
    await expect(jail.read("dir", MAX)).rejects.toMatchObject(code("Conflict"));
    await expect(jail.read("dir/none", MAX)).rejects.toMatchObject(code("NotFound"));
    await expect(jail.write("dir", Buffer.from("x"))).rejects.toMatchObject(code("Conflict"));
    await expect(jail.write("fifo/x", Buffer.from("x"))).rejects.toMatchObject(code("Conflict"));
    expect((await jail.list("")).map(({ name, kind }) => `${name}:${kind}`)).toEqual([
      "dir:directory",
      "fifo:other",
      "hard:other",
      "sock:other",
    ]);
    await jail.write("hard", Buffer.from("mine"));
    await jail.write("fifo", Buffer.from("mine"));
    expect(await readFile(join(top, "outside", "secret"), "utf8")).toBe("the secret");
    expect((await jail.read("fifo", MAX)).content.toString()).toBe("mine");
    expect(await readdir(root)).toHaveLength(4);
    socket.close();
  });

  it("[SB-fs] reads no more than asked for, whatever the file says of its size", async () => {
    await put("exact", "x".repeat(1000));
    expect((await jail.read("exact", 1000)).content).toHaveLength(1000);
    await expect(jail.read("exact", 999)).rejects.toMatchObject(code("PayloadTooLarge"));
    await put("sparse");
    await truncate(join(root, "sparse"), 2 ** 40);
    await expect(jail.read("sparse", MAX)).rejects.toMatchObject(code("PayloadTooLarge"));
    // Files of /proc tell a size of 0 and hold more: as one does that grows while it is read.
    await using proc = await Jail.open(`/proc/${process.pid}`);
    expect((await proc.read("status", MAX)).content.length).toBeGreaterThan(500);
    await expect(proc.read("status", 100)).rejects.toMatchObject(code("PayloadTooLarge"));
  });

  it("walks within bounds and tells what it skipped", async () => {
    await jail.write("src/a.ts", Buffer.from("a"));
    await jail.write("src/deep/er/b.ts", Buffer.from("bb"), { executable: true });
    await jail.write("node_modules/x/y.js", Buffer.from("y"));
    await symlink("/etc", join(root, "link"));
    await link(join(root, "src/a.ts"), join(root, "hard"));
    execFileSync("mkfifo", [join(root, "fifo")]);
    const socket = createServer().listen(join(root, "sock"));
    await writeFile(Buffer.concat([Buffer.from(`${root}/bad-`), Buffer.from([0xff])]), "");
    const ignore = (path: string) => path === "node_modules";
    const all = await jail.walk({ maxEntries: 100, maxDepth: 10, ignore });
    expect(all.entries.map(({ path, kind, size, executable }) => [path, kind, size, executable])).toEqual([
      ["src", "directory", 0, false],
      ["src/deep", "directory", 0, false],
      ["src/deep/er", "directory", 0, false],
      ["src/deep/er/b.ts", "file", 2, true],
    ]);
    const skipped = Object.fromEntries(all.skipped.map(({ path, reason }) => [path, reason]));
    expect(skipped).toMatchObject({
      link: "symlink",
      hard: "hardlink",
      "src/a.ts": "hardlink",
      fifo: "fifo",
      sock: "socket",
    });
    expect(all.skipped.some(({ reason }) => reason === "name")).toBe(true);
    expect(all.truncated).toBe(false);
    const shallow = await jail.walk({ maxEntries: 100, maxDepth: 1 }, "src");
    expect(shallow.skipped).toContainEqual({ path: "deep", reason: "depth" });
    expect(await jail.walk({ maxEntries: 2, maxDepth: 10 }, "src")).toMatchObject({ truncated: true });
    await expect(jail.walk({ maxEntries: 2, maxDepth: 2 }, "link")).rejects.toMatchObject({
      name: "AppError",
    });
    socket.close();
    await using dev = await Jail.open("/dev");
    const devices = await dev.walk({ maxEntries: 1000, maxDepth: 1 });
    expect(devices.skipped).toContainEqual({ path: "null", reason: "device" });
    await expect(dev.read("zero", MAX)).rejects.toMatchObject(code("Forbidden"));
  });

  it("bounds listings, and the list of what a walk skipped", async () => {
    for (let index = 0; index < 1100; index += 1) await symlink("x", join(root, `l${index}`));
    await expect(jail.list("", 1000)).rejects.toMatchObject(code("PayloadTooLarge"));
    const walked = await jail.walk({ maxEntries: 10, maxDepth: 1 });
    expect(walked).toMatchObject({ entries: [], truncated: true });
    expect(walked.skipped).toHaveLength(1000);
  });

  it("a closed jail does nothing more", async () => {
    await jail.close();
    await expect(jail.list("")).rejects.toMatchObject(code("Unavailable"));
  });

  it.runIf(isRoot)("gives what it makes to its owner, and never what a link leads to", async () => {
    await using theirs = await Jail.open(root, { owner: { uid: 65_534, gid: 65_534 } });
    await theirs.write("a/b/file", Buffer.from("x"));
    for (const path of ["a", "a/b", "a/b/file"]) expect((await stat(join(root, path))).uid).toBe(65_534);
    expect((await stat(root)).uid).toBe(0);
  });

  it.runIf(!isRoot)("tells what permissions keep from it", async () => {
    await jail.write("locked/file", Buffer.from("x"));
    await chmod(join(root, "locked"), 0);
    await expect(jail.read("locked/file", MAX)).rejects.toMatchObject(code("Forbidden"));
    expect((await jail.walk({ maxEntries: 9, maxDepth: 9 })).skipped).toContainEqual({
      path: "locked",
      reason: "unreadable",
    });
    expect(await jail.remove("locked")).toBe(true);
  });
});

it("[SB-fs] nothing gets out while somebody swaps directories and links in a race", async () => {
  await mkdir(join(root, "work"));
  await put("work/file", "inside");
  await symlink(join(top, "outside"), join(root, "swap"));
  await writeFile(join(top, "outside", "file"), "OUTSIDE");
  const swapper = new Worker(
    // Making a missing directory anew, as the jail does, must not end the game: what is in the way is removed.
    `const fs = require("fs"), { root, outside } = require("worker_threads").workerData;
     const attempt = (act) => { try { act(); return true } catch { return false } };
     const move = (a, b) => attempt(() => fs.renameSync(root + "/" + a, root + "/" + b));
     for (;;) {
       attempt(() => fs.symlinkSync(outside, root + "/swap"));
       move("work", "spare"); move("swap", "work"); move("work", "swap");
       if (!move("spare", "work")) { attempt(() => fs.rmSync(root + "/work", { recursive: true })); move("spare", "work"); }
     }`,
    { eval: true, workerData: { root, outside: join(top, "outside") } },
  );
  const seen = { inside: 0, refused: 0, escaped: 0 };
  const enough = () => seen.inside > 10 && seen.refused > 10;
  const [soonest, latest] = [Date.now() + 3000, Date.now() + 30_000];
  try {
    while (Date.now() < soonest || (!enough() && Date.now() < latest)) {
      const attempts = await Promise.allSettled([
        jail.read("work/file", MAX),
        jail.list("work"),
        jail.write("work/new", Buffer.from("x")),
        jail.mkdir("work/dir"),
        jail.remove("work/secret"),
        jail.walk({ maxEntries: 100, maxDepth: 5 }),
      ]);
      const [read, list, , , removed, walked] = attempts;
      if (read.status === "fulfilled")
        seen[read.value.content.toString() === "inside" ? "inside" : "escaped"] += 1;
      else seen.refused += 1;
      if (list.status === "fulfilled" && list.value.some(({ name }) => name === "secret")) seen.escaped += 1;
      if (removed.status === "fulfilled" && removed.value) seen.escaped += 1;
      if (walked.status === "fulfilled" && walked.value.entries.some(({ path }) => path.endsWith("secret"))) {
        seen.escaped += 1;
      }
    }
  } finally {
    await swapper.terminate();
  }
  expect(seen.escaped).toBe(0);
  expect(enough()).toBe(true);
  expect((await readdir(join(top, "outside"))).sort()).toEqual(["file", "secret"]);
  expect(await readFile(join(top, "outside", "file"), "utf8")).toBe("OUTSIDE");
});

describe("removing a tree", () => {
  it("gives up in time when somebody keeps adding to it", async () => {
    await mkdir(join(root, "busy"));
    const adder = new Worker(
      `const fs = require("fs"), dir = require("worker_threads").workerData; let n = 0;
       for (;;) try { fs.writeFileSync(dir + "/" + n++, "") } catch {}`,
      { eval: true, workerData: join(root, "busy") },
    );
    const outcome = await jail.remove("busy", 300).catch((error: unknown) => error);
    await adder.terminate();
    // Fast enough machines may catch the moment at which it is empty.
    expect(outcome === true || (outcome as { code: string }).code === "Timeout").toBe(true);
    expect(await jail.remove("busy")).toBe(outcome !== true || (await readdir(root)).length > 0);
  });
});
