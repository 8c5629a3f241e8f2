import { execFile, spawnSync } from "node:child_process";
import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { AppError } from "#schemas";
import { until } from "../../testing/harness.ts";
import { type DirectoryWatch, type WatchOptions, watchDirectory } from "./watch.ts";

let top: string;
let root: string;
let outside: string;
let open: DirectoryWatch[];
beforeEach(async () => {
  top = await mkdtemp(join(tmpdir(), "cds-watch-"));
  root = join(top, "root");
  outside = join(top, "outside");
  await mkdir(root);
  await mkdir(outside);
  open = [];
});
afterEach(async () => {
  for (const watch of open) await watch.close();
  await rm(top, { recursive: true, force: true });
});

/** A watch that keeps what it was told. */
async function watching(options: Partial<WatchOptions> = {}) {
  const told: string[] = [];
  const errors: AppError[] = [];
  const watch = await watchDirectory(root, {
    debounceMs: 10,
    maxWaitMs: 50,
    ...options,
    onChange: (kind) => {
      told.push(kind);
    },
    onError: (error) => {
      errors.push(error);
    },
  });
  open.push(watch);
  /** Does something, and waits until that was told: told again and again until it was, for all rounds before count. */
  const tells = async (act: () => Promise<unknown>) => {
    await quiet();
    const before = told.length;
    await act();
    await until(() => told.length > before);
  };
  /** Until a change made now, elsewhere, is the last that was told of. */
  const quiet = async () => {
    for (let seen = -1; seen !== told.length; ) {
      seen = told.length;
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
  };
  return { watch, told, errors, tells, quiet };
}

const put = (path: string, content = "x") => writeFile(join(root, path), content);

describe("watching a directory", () => {
  it("tells of every kind of change, at any depth, again and again", async () => {
    await mkdir(join(root, "a/b/c"), { recursive: true });
    const { watch, told, tells } = await watching();
    expect(watch).toMatchObject({ mode: "events", directories: 4 });
    await tells(() => put("top"));
    await tells(() => put("a/b/c/file"));
    await tells(() => put("a/b/c/file", "more"));
    await tells(() => rename(join(root, "a/b/c/file"), join(root, "a/file")));
    await tells(() => rm(join(root, "a/file")));
    await tells(() => rm(join(root, "a/b"), { recursive: true }));
    await until(() => watch.directories === 2);
    expect(new Set(told)).toEqual(new Set(["changed"]));
  });

  it("tells of files in trees that were made in one go, and moved in and out", async () => {
    const { watch, tells, quiet, told } = await watching();
    await tells(() => mkdir(join(root, "a/b/c/d/e"), { recursive: true }));
    await tells(() => put("a/b/c/d/e/file"));
    await tells(() => rename(join(root, "a"), join(outside, "a")));
    await until(() => watch.directories === 1);
    await quiet();
    const before = told.length;
    await writeFile(join(outside, "a/b/c/d/e/file"), "not ours any more");
    await quiet();
    expect(told).toHaveLength(before);
    await tells(() => rename(join(outside, "a"), join(root, "back")));
    await tells(() => put("back/b/c/d/e/file", "ours again"));
  });

  it("follows no link: neither one that was there nor one that takes a directory's place", async () => {
    await mkdir(join(outside, "inner"));
    await symlink(outside, join(root, "link"));
    await mkdir(join(root, "dir/inner"), { recursive: true });
    const { watch, told, tells, quiet } = await watching();
    expect(watch.directories).toBe(3);
    await tells(async () => {
      await rename(join(root, "dir"), join(root, "aside"));
      await symlink(outside, join(root, "dir"));
    });
    await quiet();
    const before = told.length;
    await writeFile(join(outside, "file"), "x");
    await writeFile(join(outside, "inner/file"), "x");
    await quiet();
    expect(told).toHaveLength(before);
    expect(watch.directories).toBe(3);
  });

  it("passes over what is ignored", async () => {
    await mkdir(join(root, "node_modules/x"), { recursive: true });
    const asked: string[] = [];
    const ignore = (path: string) => {
      asked.push(path);
      return path.endsWith("node_modules");
    };
    const { watch, told, tells, quiet } = await watching({ ignore });
    await tells(() => mkdir(join(root, "pkg/node_modules/y"), { recursive: true }));
    await until(() => watch.directories === 2);
    await quiet();
    const before = told.length;
    await put("node_modules/x/file");
    await put("pkg/node_modules/y/file");
    await quiet();
    expect(told).toHaveLength(before);
    expect(new Set(asked)).toEqual(new Set(["node_modules", "pkg", "pkg/node_modules"]));
  });

  it("does not drown: a program that writes without pause is told of rarely", async () => {
    const { told } = await watching({ debounceMs: 10, maxWaitMs: 400 });
    let writes = 0;
    const end = Date.now() + 3000;
    while (Date.now() < end || writes < 500) {
      await put(`file${writes % 7}`, `${writes}`);
      writes += 1;
    }
    await until(() => told.length > 0);
    expect(told.length).toBeLessThan(writes / 10);
  });

  it("polls what has too many directories or is too deep, and watches again when that is over", async () => {
    await mkdir(join(root, "a/b"), { recursive: true });
    await mkdir(join(root, "c"));
    const { watch, told } = await watching({ maxDirectories: 3, pollMs: 20 });
    expect(watch).toMatchObject({ mode: "polling", directories: 0 });
    await until(() => told.length > 2);
    expect(new Set(told)).toEqual(new Set(["overflow"]));
    await rm(join(root, "a"), { recursive: true });
    await until(() => watch.mode === "events");
    await until(() => watch.directories === 2);
    const before = told.length;
    await mkdir(join(root, "d/".repeat(70)), { recursive: true });
    await until(() => watch.mode === "polling");
    await until(() => told.length > before + 1);
  });

  it("polls what has too many files to be looked through", async () => {
    for (let index = 0; index < 6; index += 1) await put(`file${index}`);
    const { watch, told } = await watching({ maxEntries: 5, pollMs: 20 });
    expect(watch.mode).toBe("polling");
    const deep = join(root, "d/".repeat(70));
    await mkdir(deep, { recursive: true });
    expect((await watching()).watch).toMatchObject({ mode: "polling", directories: 0 });
    await rm(join(root, "d"), { recursive: true });
    await rm(join(root, "file0"));
    await until(() => watch.mode === "events");
    await until(() => told.length > 0);
  });

  it("may be closed at any moment, whatever happens just then", async () => {
    for (let round = 0; round < 60; round += 1) {
      await mkdir(root, { recursive: true });
      const { watch, errors } = await watching({ debounceMs: 0, maxWaitMs: 0, pollMs: 1 });
      await mkdir(join(root, "a/b/c"), { recursive: true });
      const busy = round % 3 === 0 ? rm(root, { recursive: true, force: true }) : put(`a/b/c/file${round}`);
      for (let turn = 0; turn < round % 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
      await watch.close();
      await busy;
      expect(watch.directories).toBe(0);
      expect(errors.every((error) => error.code === "NotFound")).toBe(true);
    }
  });

  it("ends with a word when the directory is replaced, removed or moved", async () => {
    const replaced = await watching({ pollMs: 20 });
    await rename(root, `${root}-moved`);
    await mkdir(root);
    await until(() => replaced.errors.length > 0);
    expect(replaced.errors[0]).toMatchObject({ code: "NotFound" });
    await replaced.watch.closed;
    const removed = await watching({ pollMs: 20 });
    await rm(root, { recursive: true });
    await until(() => removed.errors.length > 0);
    await removed.watch.closed;
    expect(removed.watch.directories).toBe(0);
    await expect(watchDirectory(root, { onChange: () => {}, onError: () => {} })).rejects.toMatchObject({
      code: "NotFound",
    });
    await symlink(outside, root);
    await expect(watchDirectory(root, { onChange: () => {}, onError: () => {} })).rejects.toMatchObject({
      name: "AppError",
    });
  });

  it("a caller's failure ends the watch and is told", async () => {
    const errors: AppError[] = [];
    const watch = await watchDirectory(root, {
      debounceMs: 1,
      onChange: () => {
        throw new Error("broken");
      },
      onError: (error) => {
        errors.push(error);
      },
    });
    await put("file");
    await watch.closed;
    expect(errors).toMatchObject([{ code: "InternalError" }]);
  });

  it("tells nothing after it was closed, and leaves no descriptor or watch", async () => {
    await mkdir(join(root, "a/b"), { recursive: true });
    const { watch, told } = await watching();
    await put("a/b/file");
    await Promise.all([watch.close(), watch.close()]);
    await watch.closed;
    const before = told.length;
    expect(watch.directories).toBe(0);
    await put("a/b/other");
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(told).toHaveLength(before);
  });
});

/** A user namespace has a number of watches of its own, which its maker may set. */
const LIMIT_WATCHES = 'echo 3 > /proc/sys/user/max_inotify_watches && exec "$0" --input-type=module -e "$1"';
const canLimit =
  spawnSync("unshare", ["-r", "sh", "-c", "echo 3 > /proc/sys/user/max_inotify_watches"]).status === 0;

it.runIf(canLimit)("polls when the kernel has no watches left, and says so", async () => {
  await mkdir(join(root, "a/b/c/d/e"), { recursive: true });
  const program = `
    const { watchDirectory } = await import(${JSON.stringify(new URL("./watch.ts", import.meta.url).href)});
    const alive = setInterval(() => {}, 1000);
    const watch = await watchDirectory(${JSON.stringify(root)}, {
      pollMs: 20,
      onError: (error) => { throw error; },
      onChange: async (kind) => { console.log(watch.mode, watch.directories, kind); await watch.close(); },
    });
    await watch.closed;
    clearInterval(alive);`;
  const { stdout } = await promisify(execFile)(
    "unshare",
    ["-r", "sh", "-c", LIMIT_WATCHES, process.execPath, program],
    { timeout: 60_000 },
  );
  expect(stdout.trim()).toBe("polling 0 overflow");
});
