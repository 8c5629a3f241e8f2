import { execFileSync } from "node:child_process";
import { chmod, chown, lstat, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { until } from "../../testing/harness.ts";
import { FsEngine } from "./engine.ts";
import { Jail } from "./jail.ts";
import { watchDirectory } from "./watch.ts";

const NOBODY = 65_534;
const QUOTA = { bytes: 100_000, files: 1000, fileBytes: 50_000 };
const asRoot = process.getuid?.() === 0;

let top: string;
let root: string;
let jail: Jail;

/** Root may do everything; here the rights of an ordinary user are what is asked about. */
beforeAll(async () => {
  top = await mkdtemp(join(tmpdir(), "cds-locked-"));
  if (!asRoot) return;
  await chown(top, NOBODY, NOBODY);
  process.setegid?.(NOBODY);
  process.seteuid?.(NOBODY);
});
afterAll(async () => {
  if (asRoot) {
    process.seteuid?.(0);
    process.setegid?.(0);
  }
  await rm(top, { recursive: true, force: true });
});
beforeEach(async () => {
  root = await mkdtemp(join(top, "root-"));
  jail = await Jail.open(root);
});
afterEach(() => jail.close());

const code = (name: string) => ({ code: name });
const put = (path: string) => writeFile(join(root, path), "x");

describe("what an ordinary user is locked out of", () => {
  it("is told as Forbidden, and is no room for more", async () => {
    await mkdir(join(root, "locked/inner"), { recursive: true });
    await put("locked/file");
    await put("unreadable");
    await chmod(join(root, "unreadable"), 0);
    await chmod(join(root, "locked"), 0);
    await expect(jail.read("unreadable", 10)).rejects.toMatchObject(code("Forbidden"));
    await expect(jail.read("locked/file", 10)).rejects.toMatchObject(code("Forbidden"));
    await expect(jail.write("locked/new", Buffer.from("x"))).rejects.toMatchObject(code("Forbidden"));
    await expect(jail.mkdir("locked/a/b")).rejects.toMatchObject(code("Forbidden"));
    await expect(jail.list("locked")).rejects.toMatchObject(code("Forbidden"));
    const walked = await jail.walk({ maxEntries: 10, maxDepth: 10 });
    expect(walked.skipped).toEqual([{ path: "locked", reason: "unreadable" }]);
    expect(await jail.measure({ maxEntries: 10, maxDepth: 10 })).toMatchObject({
      entries: 2,
      complete: false,
    });
    await chmod(join(root, "locked"), 0o500);
    await expect(jail.write("locked/new", Buffer.from("x"))).rejects.toMatchObject(code("Forbidden"));
    const engine = new FsEngine();
    const directory = await engine.start({ root, quota: QUOTA });
    await chmod(join(root, "locked/inner"), 0);
    await expect(directory.write("x", Buffer.from("x"))).rejects.toMatchObject(code("QuotaExceeded"));
    await chmod(join(root, "locked/inner"), 0o700);
    expect(await directory.copy("locked", "copied")).toEqual({ entries: 3, bytes: 1, skipped: 0 });
    expect(await directory.copy("unreadable", "x").catch((error: { code: string }) => error.code)).toBe(
      "Forbidden",
    );
    await directory.mkdir("mixed");
    await directory.move("unreadable", "mixed/unreadable");
    expect(await directory.copy("mixed", "mixed-copy")).toMatchObject({ bytes: 0, skipped: 1 });
    await engine.close();
  });

  it("is removed all the same, however deep", async () => {
    for (const mode of [0o000, 0o100, 0o300, 0o400, 0o500, 0o600]) {
      await mkdir(join(root, `tree/${"d/".repeat(80)}`), { recursive: true });
      await put("tree/file");
      await symlink("/etc", join(root, "tree/d/link"));
      execFileSync("mkfifo", [join(root, "tree/d/fifo")]);
      // From the bottom up, while the way there is still open.
      for (let depth = 80; depth >= 0; depth -= 1) await chmod(join(root, "tree", "d/".repeat(depth)), mode);
      expect(await jail.remove("tree")).toBe(true);
      expect(await readdir(root)).toEqual([]);
    }
    expect((await lstat("/etc")).isDirectory()).toBe(true);
  });

  it("stays when its own directory may not be written to by us", async () => {
    await expect((await Jail.open("/usr")).remove("bin")).rejects.toMatchObject(code("Forbidden"));
    expect((await lstat("/usr/bin")).isDirectory()).toBe(true);
  });

  it("is watched once it is open again", async () => {
    await mkdir(join(root, "locked"), { mode: 0o000 });
    let told = 0;
    const watch = await watchDirectory(root, {
      debounceMs: 5,
      maxWaitMs: 10,
      onChange: () => {
        told += 1;
      },
      onError: () => undefined,
    });
    expect(watch.directories).toBe(1);
    await chmod(join(root, "locked"), 0o700);
    await until(() => watch.directories === 2);
    const before = told;
    await put("locked/file");
    await until(() => told > before);
    // May be entered, not listed nor watched.
    await chmod(join(root, "locked"), 0o100);
    await until(() => watch.directories === 1);
    await watch.close();
  });
});
