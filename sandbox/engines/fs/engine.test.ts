import { execFileSync } from "node:child_process";
import {
  chmod,
  link,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { metricsRegistry } from "#platform/metrics.ts";
import type { AppError } from "#schemas";
import { until } from "../../testing/harness.ts";
import type { FsDirectory } from "./directory.ts";
import { FsEngine, type FsSpec } from "./engine.ts";
import { Jail } from "./jail.ts";

const QUOTA = { bytes: 1000, files: 20, fileBytes: 600 };
const isRoot = process.getuid?.() === 0;

let root: string;
let engine: FsEngine;
let directory: FsDirectory;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "cds-fs-engine-"));
  engine = new FsEngine();
  directory = await engine.start({ root, quota: QUOTA });
});
afterEach(async () => {
  await engine.close();
  await rm(root, { recursive: true, force: true });
});

const code = (name: string) => ({ code: name });
const of = (size: number) => Buffer.alloc(size, "x");
/** Names and sizes of everything that is there. */
async function tree(): Promise<string[]> {
  const names = (await readdir(root, { recursive: true })).sort();
  return Promise.all(
    names.map(
      async (name) =>
        `${name}:${(await lstat(join(root, name))).isFile() ? (await stat(join(root, name))).size : "-"}`,
    ),
  );
}

describe("the fs engine", () => {
  it("[SB-fs] moves and copies files and trees, with what makes them runnable", async () => {
    await directory.write("src/run.sh", Buffer.from("#!/bin/sh\n"), { executable: true });
    await directory.write("src/lib/ä.txt", Buffer.from("Grüße"));
    await directory.mkdir("src/empty");
    expect(await directory.copy("src", "out/copy")).toEqual({ entries: 5, bytes: 17, skipped: 0 });
    expect((await directory.read("out/copy/lib/ä.txt")).content.toString()).toBe("Grüße");
    expect((await stat(join(root, "out/copy/run.sh"))).mode & 0o777).toBe(0o755);
    expect((await stat(join(root, "out/copy/lib/ä.txt"))).mode & 0o777).toBe(0o644);
    expect(await directory.list("out/copy/empty")).toEqual([]);
    await directory.move("out/copy/run.sh", "bin/new/start");
    expect(await directory.stat("bin/new/start")).toMatchObject({ kind: "file", size: 10, executable: true });
    await directory.move("src", "moved");
    expect((await directory.list("")).map(({ name }) => name)).toEqual(["bin", "moved", "out"]);
    expect(await directory.copy("moved/run.sh", "once")).toEqual({ entries: 1, bytes: 10, skipped: 0 });
    expect(await directory.stat("")).toMatchObject({ kind: "directory" });
    await expect(directory.stat("src")).rejects.toMatchObject(code("NotFound"));
  });

  it("[SB-fs] replaces nothing by moving or copying, and puts nothing into itself", async () => {
    await directory.write("a/file", of(1));
    await directory.write("b/file", of(2));
    await symlink("nowhere", join(root, "link"));
    for (const act of ["move", "copy"] as const) {
      for (const to of ["b", "b/file", "link"]) {
        await expect(directory[act]("a", to)).rejects.toMatchObject(code("Conflict"));
        await expect(directory[act]("a/file", to)).rejects.toMatchObject(code("Conflict"));
      }
      for (const to of ["a", "./a", "a/b", "a/b/c/d"]) {
        await expect(directory[act]("a", to)).rejects.toMatchObject(code("InvalidParams"));
      }
      for (const [from, to] of [
        ["", "x"],
        ["a", ""],
        ["", ""],
        ["a", "../x"],
        ["/etc", "x"],
      ] as const) {
        await expect(directory[act](from, to)).rejects.toMatchObject(code("InvalidParams"));
      }
      await expect(directory[act]("none", "x/y")).rejects.toMatchObject(code("NotFound"));
      await expect(directory[act]("a/file/none", "x/y")).rejects.toMatchObject(code("Conflict"));
    }
    expect(await tree()).toEqual(["a:-", "a/file:1", "b:-", "b/file:2", "link:-"]);
  });

  it("[SB-fs] copies no links nor anything that is no plain file, and says how many", async () => {
    await directory.write("a/file", of(3));
    await symlink("/etc/passwd", join(root, "a/link"));
    await link(join(root, "a/file"), join(root, "a/hard"));
    await symlink("file", join(root, "a/other"));
    await directory.write("a/alone", of(4));
    expect(await directory.copy("a", "b")).toEqual({ entries: 2, bytes: 4, skipped: 4 });
    await expect(directory.copy("a/link", "c")).rejects.toMatchObject(code("Forbidden"));
    await directory.move("a/link", "c");
    expect((await lstat(join(root, "c"))).isSymbolicLink()).toBe(true);
    expect((await readdir(join(root, "b"))).sort()).toEqual(["alone"]);
  });

  it("[SB-fs] copies within bounds of entries, bytes, size, depth and time, and leaves nothing of what it gave up", async () => {
    await using jail = await Jail.open(root);
    await directory.write("tree/a", of(100));
    await directory.write("tree/b", of(300));
    await mkdir(join(root, "deep", "d/".repeat(140)), { recursive: true });
    const bounds = { entries: 1000, bytes: 1000, fileBytes: 1000, deadline: Date.now() + 60_000 };
    const refused = (from: string, more: Partial<typeof bounds>) =>
      jail.copy(from, "copy/x", { ...bounds, ...more }).catch((error: AppError) => error.code);
    expect(await refused("tree", { entries: 2 })).toBe("QuotaExceeded");
    expect(await refused("tree", { bytes: 399 })).toBe("QuotaExceeded");
    expect(await refused("tree", { fileBytes: 299 })).toBe("PayloadTooLarge");
    expect(await refused("tree", { deadline: Date.now() - 1 })).toBe("Timeout");
    expect(await refused("deep", {})).toBe("QuotaExceeded");
    expect(await tree()).toContain("copy:-");
    expect(await readdir(join(root, "copy"))).toEqual([]);
    expect(await refused("tree", { entries: 3, bytes: 400, fileBytes: 300 })).toEqual({
      entries: 3,
      bytes: 400,
      skipped: 0,
    });
  });

  it("counts what is set aside beyond a file's size, and no more than once what has several names", async () => {
    const wide = await engine.start({ root, quota: { bytes: 1 << 24, files: 100, fileBytes: 1 << 20 } });
    await writeFile(join(root, "ahead"), "");
    execFileSync("fallocate", ["--keep-size", "--length", `${1 << 22}`, join(root, "ahead")]);
    await writeFile(join(root, "one"), of(10));
    await link(join(root, "one"), join(root, "two"));
    const { blocks } = await stat(join(root, "ahead"));
    expect(await wide.usage()).toEqual({ bytes: blocks * 512 + 10, files: 3, complete: true });
    expect(blocks * 512).toBeGreaterThanOrEqual(1 << 22);
  });

  it("moves nothing into a directory that came to lie inside it meanwhile", async () => {
    await directory.mkdir("a");
    await directory.mkdir("b/inner");
    // The names are apart; what they lead to changes after they were compared.
    const outcomes = await Promise.all(
      Array.from({ length: 30 }, async (_, index) => {
        const moving = directory.move("a", "b/inner/a").catch((error: AppError) => error.code);
        const racing = (async () => {
          await rename(join(root, "b"), join(root, `a/b`)).catch(() => undefined);
          await rename(join(root, "a/b"), join(root, "b")).catch(() => undefined);
          await rename(join(root, "b/inner/a"), join(root, "a")).catch(() => undefined);
        })();
        await racing;
        return { index, outcome: await moving };
      }),
    );
    for (const { outcome } of outcomes) {
      expect([undefined, "NotFound", "InvalidParams", "Conflict"]).toContain(outcome);
    }
    expect((await tree()).filter((line) => !line.endsWith(":-"))).toEqual([]);
  });

  it("ends a watch that was still being set up when it was closed", async () => {
    await mkdir(join(root, "d/".repeat(20)), { recursive: true });
    const starting = directory.watch({ onChange: () => undefined, onError: () => undefined });
    await directory[Symbol.asyncDispose]();
    await expect(starting).rejects.toMatchObject(code("Unavailable"));
  });

  it("[SB-fs] keeps the quota of bytes: what would exceed it changes nothing", async () => {
    await directory.write("a", of(600));
    await expect(directory.write("b", of(601))).rejects.toMatchObject(code("PayloadTooLarge"));
    await expect(directory.write("b", of(401))).rejects.toMatchObject({
      code: "QuotaExceeded",
      details: { limit: 1000 },
    });
    await expect(directory.copy("a", "b")).rejects.toMatchObject(code("QuotaExceeded"));
    await expect(directory.write("new/dir/b", of(401))).rejects.toMatchObject(code("QuotaExceeded"));
    expect(await tree()).toEqual(["a:600"]);
    await directory.write("b", of(400));
    expect(await directory.usage()).toEqual({ bytes: 1000, files: 2, complete: true });
    await expect(directory.write("c", of(1))).rejects.toMatchObject(code("QuotaExceeded"));
    await directory.write("c", of(0));
    await expect(directory.write("b", of(401))).rejects.toMatchObject(code("QuotaExceeded"));
    await directory.write("a", of(599));
    await directory.write("b", of(401));
    expect(await directory.remove("b")).toBe(true);
    expect(await directory.remove("b")).toBe(false);
    await directory.write("d", of(401));
    expect(await directory.usage()).toEqual({ bytes: 1000, files: 3, complete: true });
  });

  it("[SB-fs] keeps the quota of files, directories on the way included", async () => {
    const small = await engine.start({ root, quota: { ...QUOTA, files: 4 } });
    await expect(small.write("a/b/c/d/e", of(1))).rejects.toMatchObject(code("QuotaExceeded"));
    await expect(small.mkdir("a/b/c/d/e")).rejects.toMatchObject(code("QuotaExceeded"));
    expect(await tree()).toEqual([]);
    await small.mkdir("a/b");
    await small.mkdir("a/b");
    await small.write("a/b/c", of(1));
    await expect(small.move("a/b/c", "x/y/z")).rejects.toMatchObject(code("QuotaExceeded"));
    await expect(small.copy("a", "x")).rejects.toMatchObject(code("QuotaExceeded"));
    await small.move("a/b/c", "x");
    await small.copy("x", "y");
    await small.write("x", of(2));
    await expect(small.copy("x", "z")).rejects.toMatchObject(code("QuotaExceeded"));
    expect(await tree()).toEqual(["a:-", "a/b:-", "x:2", "y:1"]);
  });

  it("counts what programs wrote, and what they removed, before it refuses", async () => {
    await directory.write("a", of(1));
    await writeFile(join(root, "theirs"), of(900));
    expect(await directory.usage()).toMatchObject({ bytes: 901 });
    await expect(directory.write("b", of(200))).rejects.toMatchObject(code("QuotaExceeded"));
    await rm(join(root, "theirs"));
    await directory.write("b", of(200));
    expect(await directory.usage()).toEqual({ bytes: 201, files: 2, complete: true });
  });

  it("has room for nothing where there is more than can be counted", async () => {
    await mkdir(join(root, "d/".repeat(140)), { recursive: true });
    const wide = await engine.start({ root, quota: { ...QUOTA, files: 1000 } });
    expect(await wide.usage()).toMatchObject({ complete: false });
    await expect(wide.write("a", of(1))).rejects.toMatchObject(code("QuotaExceeded"));
    await expect(wide.copy("d", "e")).rejects.toMatchObject(code("QuotaExceeded"));
    await wide.remove("d");
    await wide.write("a", of(1));
    for (let index = 0; index < 60; index += 1) await writeFile(join(root, `theirs${index}`), "");
    expect(await directory.usage()).toMatchObject({ complete: false });
    await expect(directory.mkdir("b")).rejects.toMatchObject(code("QuotaExceeded"));
    // Replacing takes no room.
    await directory.write("a", of(1));
  });

  it.runIf(!isRoot)("has room for nothing where something is locked away", async () => {
    await mkdir(join(root, "locked"), { mode: 0 });
    expect(await directory.usage()).toMatchObject({ complete: false });
    await chmod(join(root, "locked"), 0o700);
    expect(await directory.usage()).toMatchObject({ complete: true });
  });

  it("many at once stay within the quota, and each is there in full or not at all", async () => {
    const attempts = Array.from({ length: 15 }, (_, index) => directory.write(`f${index}`, of(100)));
    const outcomes = await Promise.allSettled(attempts);
    expect(outcomes.filter(({ status }) => status === "fulfilled")).toHaveLength(10);
    expect(await directory.usage()).toEqual({ bytes: 1000, files: 10, complete: true });
  });

  it("changes nothing where it is read-only", async () => {
    await directory.write("a", of(1));
    const closed = await engine.start({ root, quota: QUOTA, readOnly: true });
    for (const attempt of [
      () => closed.write("a", of(2)),
      () => closed.mkdir("b"),
      () => closed.remove("a"),
      () => closed.move("a", "b"),
      () => closed.copy("a", "b"),
    ]) {
      await expect(attempt()).rejects.toMatchObject(code("Forbidden"));
    }
    expect((await closed.read("a")).content).toHaveLength(1);
    await expect(closed.read("a", 0)).rejects.toMatchObject(code("PayloadTooLarge"));
    expect(await closed.list("")).toHaveLength(1);
    expect(await closed.usage()).toMatchObject({ files: 1 });
    expect(await tree()).toEqual(["a:1"]);
  });

  it("watches until it is ended", async () => {
    let changes = 0;
    const onChange = () => {
      changes += 1;
    };
    const options = { debounceMs: 1, onChange, onError: () => {} };
    const watch = await directory.watch(options);
    await directory.write("a", of(1));
    await until(() => changes > 0);
    await directory[Symbol.asyncDispose]();
    await watch.closed;
    await expect(directory.watch(options)).rejects.toMatchObject(code("Unavailable"));
    const other = await engine.start({ root, quota: QUOTA });
    await (await other.watch(options)).close();
  });

  it("lists what is open, waits for what has been begun, and starts nothing after it was closed", async () => {
    const other = await engine.start({ root, quota: QUOTA });
    expect(engine.list()).toEqual([directory, other]);
    const begun = directory.write("a/b/c", of(10));
    await Promise.all([directory[Symbol.asyncDispose](), directory[Symbol.asyncDispose]()]);
    await begun;
    expect(await tree()).toEqual(["a:-", "a/b:-", "a/b/c:10"]);
    expect(engine.list()).toEqual([other]);
    await expect(directory.read("a")).rejects.toMatchObject(code("Unavailable"));
    const starting = engine.start({ root, quota: QUOTA });
    await engine.close();
    await expect(starting).rejects.toMatchObject(code("Unavailable"));
    expect(engine.list()).toEqual([]);
    await expect(engine.start({ root, quota: QUOTA })).rejects.toMatchObject(code("Unavailable"));
  });

  it.each([
    { root: "relative" },
    { root: "/a\0b" },
    { quota: { ...QUOTA, bytes: 0 } },
    { quota: { ...QUOTA, files: -1 } },
    { quota: { ...QUOTA, fileBytes: Number.NaN } },
    { quota: { ...QUOTA, bytes: 1.5 } },
    { owner: { uid: -1, gid: 0 } },
    { owner: { uid: 0, gid: 2 ** 32 - 1 } },
  ] satisfies Partial<FsSpec>[])("refuses the spec %j", async (wrong) => {
    await expect(engine.start({ root, quota: QUOTA, ...wrong })).rejects.toMatchObject({
      code: "InvalidParams",
      details: { hint: expect.any(String) },
    });
  });

  it("works here, as it finds out by trying", async () => {
    expect(await engine.probe()).toEqual({ available: true, tier: null, reasons: [] });
    vi.stubEnv("TMPDIR", join(root, "none"));
    try {
      const lost = new FsEngine();
      expect(await lost.probe()).toMatchObject({ available: false, tier: null, hint: expect.any(String) });
      vi.unstubAllEnvs();
      expect(await lost.probe()).toMatchObject({ available: true });
    } finally {
      vi.unstubAllEnvs();
    }
    await expect(engine.start({ root: join(root, "none"), quota: QUOTA })).rejects.toMatchObject(
      code("NotFound"),
    );
  });

  it("counts every operation", async () => {
    const counted = async () => {
      const text = await metricsRegistry.metrics();
      return Number(/^sandbox_operations_total\{engine="fs",operation="stat"\} (\d+)/m.exec(text)?.[1] ?? 0);
    };
    const before = await counted();
    await directory.stat("");
    await directory.stat("none").catch(() => undefined);
    expect(await counted()).toBe(before + 2);
  });

  it.runIf(isRoot)("gives what it makes to its owner", async () => {
    const theirs = await engine.start({ root, quota: QUOTA, owner: { uid: 65_534, gid: 65_534 } });
    await writeFile(join(root, "ours"), "");
    await theirs.write("a/b/file", of(1));
    await theirs.copy("a", "c/d");
    await theirs.copy("ours", "e");
    for (const path of ["a/b/file", "c", "c/d", "c/d/b", "c/d/b/file", "e"]) {
      expect(await stat(join(root, path))).toMatchObject({ uid: 65_534, gid: 65_534 });
    }
    expect(await readFile(join(root, "c/d/b/file"), "utf8")).toBe("x");
  });
});
