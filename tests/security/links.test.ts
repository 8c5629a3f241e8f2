import { link, lstat, mkdir, readdir, readFile, symlink } from "node:fs/promises";
import { join, relative } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Jail } from "#sandbox";
import type { FsDirectory } from "#sandbox/engines/fs/directory.ts";
import { FsEngine } from "#sandbox/engines/fs/engine.ts";
import { openForTest, run, runNode } from "#sandbox/testing/harness.ts";
import {
  type Canaries,
  type HostileDirectory,
  openHostileDirectory,
  plantCanaries,
  SECRET,
} from "../support/canaries.ts";

const QUOTA = { bytes: 1 << 20, files: 10_000, fileBytes: 1 << 16 };
const isRoot = process.getuid?.() === 0;

let canaries: Canaries;
let hostile: HostileDirectory;
let engine: FsEngine;
let before: Record<string, string>;
beforeEach(async () => {
  canaries = await plantCanaries();
  before = await canaries.look();
  hostile = await openHostileDirectory();
  engine = new FsEngine();
});
afterEach(async () => {
  await engine.close();
  await hostile[Symbol.asyncDispose]();
  await canaries[Symbol.asyncDispose]();
});

/** The directory as the server would use it: what it makes there belongs to the slot's user. */
function use(root = hostile.work): Promise<FsDirectory> {
  const { uid, gid } = hostile.slot;
  const owner = uid === null || gid === null ? {} : { owner: { uid, gid } };
  return engine.start({ root, quota: QUOTA, ...owner });
}

/** Links of every kind, by name; `far` is the way from the root of the directory to the canaries. */
const links = (canary: string, far: string): Record<string, string> => ({
  absolute: canary,
  relative: far,
  chain: "relative",
  chained: "chain",
  root: "/",
  process: "/proc/self/root",
  descriptors: "/proc/self/fd",
  working: "/proc/self/cwd",
  first: "/proc/1/root",
  file: `${canary}/secret`,
  "relative-file": `${far}/secret`,
  "through-link": `${canary}/link`,
  dangling: `${canary}/new`,
  "dangling-relative": `${far}/new`,
  loop: "loop",
  up: "..",
  "up-and-up": "../../../../../../../..",
  empty: `${canary}/empty`,
});

const PLANT_LINKS = `
const fs = require("fs");
for (const [name, target] of Object.entries(JSON.parse(process.env.LINKS))) {
  fs.symlinkSync(target, "/work/" + name);
  fs.mkdirSync("/work/dir-" + name);
  fs.symlinkSync(target, "/work/dir-" + name + "/inner");
}
fs.writeFileSync("/work/mine", "mine");
`;

async function plantLinks(): Promise<string[]> {
  const planted = links(canaries.dir, relative(hostile.work, canaries.dir));
  await hostile.inside(PLANT_LINKS, { LINKS: JSON.stringify(planted) });
  return Object.keys(planted).flatMap((name) => [name, `dir-${name}/inner`]);
}

describe("[SB-fs] symbolic links made inside", () => {
  it("lead nobody out: to read, list, look at, walk or copy", async () => {
    const names = await plantLinks();
    const directory = await use();
    await using jail = await Jail.open(hostile.work);
    const got: unknown[] = [];
    let refused = 0;
    for (const name of names) {
      for (const path of [
        name,
        ...["secret", "dir", "dir/secret", "etc/passwd", "link", "0"].map((rest) => `${name}/${rest}`),
      ]) {
        const bounds = { maxEntries: 1000, maxDepth: 4 };
        for (const attempt of [
          () => directory.read(path),
          () => directory.list(path),
          () => directory.copy(path, "copied"),
          () => jail.read(path, 1 << 16),
          () => jail.walk(bounds, path),
        ]) {
          const outcome = await attempt().catch((error: { name?: string }) => error);
          if (outcome instanceof Error && outcome.name === "AppError") refused += 1;
          else got.push([path, outcome]);
        }
        const seen = await directory.stat(path).catch(() => undefined);
        if (seen !== undefined && (path !== name || seen.kind !== "other")) got.push([path, seen]);
      }
    }
    expect(got).toEqual([]);
    expect(refused).toBe(names.length * 7 * 5);
    const everything = await jail.walk({ maxEntries: 10_000, maxDepth: 64 });
    expect(everything.entries.filter(({ kind }) => kind === "file").map(({ path }) => path)).toEqual([
      "mine",
    ]);
    expect(await directory.usage()).toMatchObject({ bytes: 4, complete: true });
    expect(await directory.copy("dir-absolute", "copied")).toEqual({ entries: 1, bytes: 0, skipped: 1 });
    expect(await readdir(join(hostile.work, "copied"))).toEqual([]);
    expect(await canaries.look()).toEqual(before);
  });

  it("lead nobody out: to write, make, move or remove; what takes their place stays inside", async () => {
    const names = await plantLinks();
    const directory = await use();
    for (const name of names) {
      for (const rest of ["secret", "new", "dir/new", "new/deeper", "empty"]) {
        for (const attempt of [
          () => directory.write(`${name}/${rest}`, Buffer.from("taken")),
          () => directory.mkdir(`${name}/${rest}`),
          () => directory.move("mine", `${name}/${rest}`),
          () => directory.copy("mine", `${name}/${rest}`),
          () => directory.move(`${name}/${rest}`, "taken"),
          () => directory.remove(`${name}/${rest}`),
        ]) {
          const outcome = await attempt().catch((error: { name?: string }) => error.name);
          expect([name, rest, outcome]).toEqual([name, rest, "AppError"]);
        }
      }
      for (const attempt of [
        () => directory.mkdir(name),
        () => directory.move("mine", name),
        () => directory.copy("mine", name),
      ]) {
        await expect(attempt()).rejects.toMatchObject({
          code: expect.stringMatching(/^(Conflict|Forbidden)$/),
        });
      }
    }
    expect(await canaries.look()).toEqual(before);
    for (const name of names.filter((each) => !each.includes("/"))) {
      await directory.move(name, `moved/${name}`);
      expect((await lstat(join(hostile.work, "moved", name))).isSymbolicLink()).toBe(true);
      await directory.write(`moved/${name}`, Buffer.from("written over"));
      expect((await directory.read(`moved/${name}`)).content.toString()).toBe("written over");
      expect(await directory.remove(`dir-${name}/inner`)).toBe(true);
      expect(await directory.remove(`dir-${name}`)).toBe(true);
    }
    expect((await readdir(hostile.work)).sort()).toEqual(["mine", "moved"]);
    expect(await canaries.look()).toEqual(before);
  });

  it("are removed, never followed, with a tree, a slot and the whole sandbox; nothing is given away", async () => {
    await plantLinks();
    await hostile.inside(
      `
      const fs = require("fs");
      // What a clean-up would have to unlock first, and links where it would do that by name.
      for (const mode of [0o000, 0o100, 0o500, 0o555]) {
        const dir = "/work/locked-" + mode;
        fs.mkdirSync(dir + "/inner/deeper", { recursive: true });
        fs.symlinkSync(process.env.CANARY, dir + "/inner/link");
        fs.symlinkSync(process.env.CANARY + "/secret", dir + "/secret");
        fs.chmodSync(dir + "/inner", mode);
        fs.chmodSync(dir, mode);
      }
    `,
      { CANARY: canaries.dir },
    );
    const directory = await use();
    expect(await directory.remove("locked-320")).toBe(true);
    expect(await directory.remove("dir-absolute")).toBe(true);
    expect(await canaries.look()).toEqual(before);
    await hostile.slot.release();
    await expect(lstat(hostile.slot.dir)).rejects.toMatchObject({ code: "ENOENT" });
    expect(await canaries.look()).toEqual(before);
    // And with a slot that nobody released.
    const opened = await openForTest();
    const slot = await opened.sandboxes.slots.acquire();
    const work = await slot.makeDir("work");
    const mounts = [{ source: work, target: "/work", mode: "rw" as const }];
    const LINKS = JSON.stringify(links(canaries.dir, relative(work, canaries.dir)));
    expect(await runNode(opened.sandboxes, PLANT_LINKS, { slot, mounts, env: { LINKS } })).toMatchObject({
      code: 0,
    });
    await opened[Symbol.asyncDispose]();
    await expect(lstat(slot.dir)).rejects.toMatchObject({ code: "ENOENT" });
    expect(await canaries.look()).toEqual(before);
  });

  it.runIf(isRoot)("gives no owner what a link leads to", async () => {
    const names = await plantLinks();
    const directory = await engine.start({
      root: hostile.work,
      quota: QUOTA,
      owner: { uid: 65_534, gid: 65_534 },
    });
    for (const name of names) {
      await directory.mkdir(`${name}/x/y`).catch(() => undefined);
      await directory.write(`${name}/x`, Buffer.from("x")).catch(() => undefined);
    }
    for (const name of names) await directory.write(name, Buffer.from("x"));
    expect(await canaries.look()).toEqual(before);
  });

  it("are no way into a sandbox: neither as what is mounted nor as where it is mounted", async () => {
    await hostile.inside(
      `const fs = require("fs");
       fs.symlinkSync(process.env.CANARY, "/work/link"); fs.mkdirSync("/work/dir");
       fs.symlinkSync(process.env.CANARY, "/work/dir/mnt");`,
      { CANARY: canaries.dir },
    );
    const { slot, work, opened } = hostile;
    const whole = { source: work, target: "/work", mode: "rw" as const };
    for (const mounts of [
      [{ source: join(work, "link"), target: "/work", mode: "rw" as const }],
      [{ source: join(work, "link"), target: "/work", mode: "ro" as const }],
      [{ source: join(work, "dir/mnt"), target: "/work", mode: "ro" as const }],
      [whole, { source: "/usr", target: "/work/link", mode: "ro" as const }],
      [whole, { source: "/usr", target: "/work/dir/mnt/new", mode: "ro" as const }],
      [whole, { source: join(work, "dir"), target: "/other", mode: "ro" as const }],
    ]) {
      await expect(run(opened.sandboxes, ["/bin/true"], { slot, mounts })).rejects.toMatchObject({
        code: "InvalidParams",
      });
    }
    await expect(slot.makeDir("work")).rejects.toMatchObject({ code: "EEXIST" });
    await symlink(canaries.dir, join(slot.dir, "planted"));
    await expect(slot.makeDir("planted")).rejects.toMatchObject({ code: "EEXIST" });
    expect(await canaries.look()).toEqual(before);
  });
});

describe("[SB-fs] hard links", () => {
  it("cannot be made to anything outside, nor from one mount to another", async () => {
    const { opened, slot, work } = hostile;
    const other = await slot.makeDir("other");
    const readable = await slot.makeDir("readable");
    const mounts = [
      { source: work, target: "/work", mode: "rw" as const },
      { source: other, target: "/other", mode: "rw" as const },
      { source: readable, target: "/readable", mode: "ro" as const },
    ];
    const script = `
      const fs = require("fs"), outcomes = {};
      fs.writeFileSync("/work/a", "a"); fs.writeFileSync("/other/b", "b"); fs.writeFileSync("/tmp/c", "c");
      const pairs = [["/work/a", "/work/same"], ["/work/a", "/other/x"], ["/other/b", "/work/x"], ["/tmp/c", "/work/x"],
        ["/etc/passwd", "/work/x"], ["/bin/sh", "/work/x"], ["/proc/self/exe", "/work/x"], ["/proc/1/environ", "/work/x"],
        ["/dev/null", "/work/x"], ["/work/a", "/readable/x"], [process.env.CANARY + "/secret", "/work/x"]];
      for (const [from, to] of pairs) {
        try { fs.linkSync(from, to); outcomes[from + " " + to] = "made"; } catch (e) { outcomes[from + " " + to] = e.code; }
      }
      console.log(JSON.stringify(outcomes));`;
    const { stdout } = await runNode(opened.sandboxes, script, {
      slot,
      mounts,
      env: { CANARY: canaries.dir },
    });
    const outcomes = Object.entries(JSON.parse(stdout) as Record<string, string>);
    expect(outcomes).toHaveLength(11);
    expect(outcomes.filter(([, outcome]) => outcome === "made")).toEqual([["/work/a /work/same", "made"]]);
    expect((await readdir(work)).sort()).toEqual(["a", "same"]);
    expect(await readdir(readable)).toEqual([]);
    expect(await canaries.look()).toEqual(before);
  });

  it("that are there all the same are not read, not copied, not written through, and count once", async () => {
    await mkdir(join(hostile.work, "dir"));
    await link(join(canaries.dir, "secret"), join(hostile.work, "dir/hard"));
    await link(join(canaries.dir, "program"), join(hostile.work, "program"));
    await hostile.inside(`require("fs").writeFileSync("one", "12345"); require("fs").linkSync("one", "two")`);
    const directory = await use();
    expect(await directory.usage()).toMatchObject({ bytes: SECRET.length + 10 + 5, files: 5 });
    for (const name of ["dir/hard", "program", "one", "two"]) {
      await expect(directory.read(name)).rejects.toMatchObject({ code: "Forbidden" });
      await expect(directory.copy(name, "x")).rejects.toMatchObject({ code: "Forbidden" });
      expect(await directory.stat(name)).toMatchObject({ kind: "other", size: 0 });
    }
    expect(await directory.copy("dir", "copy")).toEqual({ entries: 1, bytes: 0, skipped: 1 });
    await directory.write("dir/hard", Buffer.from("mine"), { executable: true });
    await directory.remove("program");
    expect((await directory.read("dir/hard")).content.toString()).toBe("mine");
    // Its times tell that a name was given and taken; nothing else did change.
    expect(await readFile(join(canaries.dir, "secret"), "utf8")).toBe(SECRET);
    for (const name of ["secret", "program"]) {
      const [mode, uid, gid, size, nlink] = (before[name] ?? "").split(" ");
      const now = await lstat(join(canaries.dir, name));
      expect([now.mode.toString(8), now.uid, now.gid, now.size, now.nlink].map(String)).toEqual([
        mode,
        uid,
        gid,
        size,
        nlink,
      ]);
    }
  });
});
