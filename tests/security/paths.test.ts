import { readdir, readFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Jail, type SandboxSpec } from "#sandbox";
import type { FsDirectory } from "#sandbox/engines/fs/directory.ts";
import { FsEngine } from "#sandbox/engines/fs/engine.ts";
import { shell, specFor } from "#sandbox/testing/harness.ts";
import {
  type Canaries,
  type HostileDirectory,
  openHostileDirectory,
  plantCanaries,
  SECRET,
} from "../support/canaries.ts";

const QUOTA = { bytes: 1 << 20, files: 1000, fileBytes: 1 << 16 };

let canaries: Canaries;
let hostile: HostileDirectory;
let before: Record<string, string>;
beforeAll(async () => {
  canaries = await plantCanaries();
  before = await canaries.look();
  hostile = await openHostileDirectory();
});
afterAll(async () => {
  await hostile?.[Symbol.asyncDispose]();
  await canaries?.[Symbol.asyncDispose]();
});

/** Paths that lead out, or are none. */
const leadingOut = (canary: string) => [
  "..",
  "../",
  "a/..",
  "a/../..",
  "./../x",
  `${"../".repeat(40)}etc/passwd`,
  `a/${"../".repeat(40)}${canary.slice(1)}/secret`,
  "/",
  "//",
  "/etc/passwd",
  `${canary}/secret`,
  `/${canary}/secret`,
  "/proc/self/root/etc/passwd",
  "a\0b",
  "secret\0.txt",
  "\0",
  "\ud800",
  "a/\udfff/b",
  "x".repeat(256),
  `a/${"ä".repeat(128)}`,
  "x/".repeat(2100),
];

/** Names that only look as if they led anywhere. On this system each is one name, or several below the root. */
const LOOKALIKES = [
  "\u2024\u2024/secret",
  "\u2025",
  "\uff0e\uff0e\uff0fsecret",
  "..\u2215secret",
  "%2e%2e%2fsecret",
  "..%c0%afsecret",
  "..\\..\\secret",
  "C:\\Windows\\win.ini",
  "C:/Windows/win.ini",
  "\\\\server\\share",
  "CON",
  "file.txt::$DATA",
  "...",
  ".. ",
  "..;/x",
  "~/x",
  "~root",
  "$HOME",
  "-rf",
  "a\u202eb",
  "a\nb",
  "e\u0301",
];

/** Everything that takes a path, of the jail and of the engine. */
const uses = (jail: Jail, directory: FsDirectory, path: string): Record<string, () => Promise<unknown>> => ({
  read: () => jail.read(path, 1 << 16),
  list: () => jail.list(path),
  write: () => jail.write(path, Buffer.from("taken")),
  mkdir: () => jail.mkdir(path),
  stat: () => jail.stat(path),
  remove: () => jail.remove(path),
  walk: () => jail.walk({ maxEntries: 10, maxDepth: 10 }, path),
  "move from": () => jail.move(path, "moved"),
  "move to": () => jail.move("here", path),
  "engine read": () => directory.read(path),
  "engine list": () => directory.list(path),
  "engine write": () => directory.write(path, Buffer.from("taken")),
  "engine mkdir": () => directory.mkdir(path),
  "engine stat": () => directory.stat(path),
  "engine remove": () => directory.remove(path),
  "engine move from": () => directory.move(path, "moved"),
  "engine move to": () => directory.move("here", path),
  "engine copy from": () => directory.copy(path, "copied"),
  "engine copy to": () => directory.copy("here", path),
});

describe("[SB-fs] paths", () => {
  it("that lead out or are none are refused by everything that takes a path, and change nothing", async () => {
    await using jail = await Jail.open(hostile.work);
    const engine = new FsEngine();
    const directory = await engine.start({ root: hostile.work, quota: QUOTA });
    await jail.write("here", Buffer.from("here"));
    const wrong: string[] = [];
    for (const path of leadingOut(canaries.dir)) {
      for (const [name, use] of Object.entries(uses(jail, directory, path))) {
        const outcome = await use().then(
          () => "done",
          (error: { code?: string }) => error.code,
        );
        if (outcome !== "InvalidParams")
          wrong.push(`${name} ${JSON.stringify(path.slice(0, 60))}: ${outcome}`);
      }
    }
    expect(wrong).toEqual([]);
    expect(await readdir(hostile.work)).toEqual(["here"]);
    expect(await canaries.look()).toEqual(before);
    await jail.remove("here");
    await engine.close();
  });

  it("that only look as if are names like any other: what is written is there, and nowhere else", async () => {
    const engine = new FsEngine();
    const directory = await engine.start({ root: hostile.work, quota: QUOTA });
    for (const path of LOOKALIKES) await directory.write(path, Buffer.from(path));
    const names = new Set(LOOKALIKES.map((path) => path.split("/")[0]));
    expect(new Set(await readdir(hostile.work))).toEqual(names);
    for (const path of LOOKALIKES) {
      expect(await readFile(`${hostile.work}/${path}`, "utf8")).toBe(path);
      expect((await directory.read(`.//./${path}`)).content.toString()).toBe(path);
    }
    for (const name of names) expect(await directory.remove(`${name}/`)).toBe(true);
    for (const root of ["", ".", "./", "././/."]) {
      expect(await directory.list(root)).toEqual([]);
      await directory.mkdir(root);
      for (const attempt of [
        () => directory.write(root, Buffer.from("x")),
        () => directory.remove(root),
        () => directory.read(root),
      ]) {
        await expect(attempt()).rejects.toMatchObject({ code: "InvalidParams" });
      }
    }
    expect(await canaries.look()).toEqual(before);
    await engine.close();
  });

  it("of bytes that are no text can be counted, copied and removed, but are no names to anybody", async () => {
    await hostile.inside(`
      const fs = require("fs");
      const name = (...bytes) => Buffer.from([...Buffer.from("/work/bad/"), ...bytes]);
      fs.mkdirSync("/work/bad");
      fs.mkdirSync(name(0xff));
      fs.writeFileSync(name(0xff, 0x2f, 0xfe), "inside");
      fs.writeFileSync(name(0xc0, 0xaf), "overlong slash");
      fs.writeFileSync(name(0xed, 0xa0, 0x80), "surrogate");
      fs.symlinkSync("/etc", name(0x2e, 0x2e, 0xff));
      fs.writeFileSync("/work/bad/\\ufffd", "what bad bytes are shown as");
    `);
    const engine = new FsEngine();
    const directory = await engine.start({ root: hostile.work, quota: QUOTA });
    expect((await directory.list("bad")).map(({ name }) => name)).toEqual(["\ufffd"]);
    await using jail = await Jail.open(hostile.work);
    const walked = await jail.walk({ maxEntries: 100, maxDepth: 10 });
    expect(walked.entries.map(({ path }) => path)).toEqual(["bad", "bad/\ufffd"]);
    expect(walked.skipped.map(({ reason }) => reason)).toEqual(["name", "name", "name", "name"]);
    expect(await directory.usage()).toMatchObject({ files: 7, complete: true });
    expect(await directory.copy("bad", "copy")).toMatchObject({ entries: 6, skipped: 1 });
    expect(await readdir(`${hostile.work}/copy`, { encoding: "buffer" })).toHaveLength(4);
    for (const name of ["bad", "copy"]) expect(await directory.remove(name)).toBe(true);
    expect(await readdir(hostile.work)).toEqual([]);
    await engine.close();
  });

  it("of a sandbox's mounts, its directory and its environment are checked before anything is started", async () => {
    const { slot, work, opened } = hostile;
    const base = { mounts: [{ source: work, target: "/work", mode: "rw" as const }] };
    const source = (path: string, mode: "ro" | "rw" = "rw") => ({
      mounts: [{ source: path, target: "/work", mode }],
    });
    const target = (path: string) => ({ mounts: [{ source: work, target: path, mode: "rw" as const }] });
    const wrong: Partial<SandboxSpec>[] = [
      ...[
        "work",
        "./work",
        `${work}/..`,
        `${work}/../../..`,
        `${work}/`,
        `/${work}`,
        `${work}\0`,
        slot.dir,
        "/",
        "/etc",
        canaries.dir,
      ].map((path) => source(path)),
      ...["etc", "../etc", "/usr/../etc\0", ""].map((path) => source(path, "ro")),
      ...[
        "work",
        "/work/..",
        "/work/../etc",
        "/",
        "/etc",
        "/etc/x",
        "/proc/x",
        "/usr/bin",
        "/dev/shm",
        "//work",
        "/wo\0rk",
        "/work/",
        "/run/gateway.sock",
        "/run",
      ].map(target),
      ...["work", "..", "/work/..", "/work/../../etc", "/wo\0rk", "", "/work/"].map((cwd) => ({
        ...base,
        cwd,
      })),
      ...["", "A=B", "1A", "A B", "Ä", "A\0", "LD-PRELOAD"].map((name) => ({
        ...base,
        env: { [name]: "x" },
      })),
      { ...base, env: { A: "b\0LD_PRELOAD=/work/x.so" } },
      { ...base, name: "../x" },
      { ...base, name: "" },
    ];
    const accepted: unknown[] = [];
    for (const more of wrong) {
      const outcome = await opened.sandboxes.start(specFor(slot, ["/bin/true"], more)).then(
        async (running) => {
          await running.kill();
          return "started";
        },
        (error: { code?: string }) => error.code,
      );
      if (outcome !== "InvalidParams") accepted.push([outcome, more]);
    }
    expect(accepted).toEqual([]);
    for (const argv of [[], [""], ["/bin/sh\0", "-c", "x"], ["/bin/sh", "-c", "echo \0 x"]]) {
      await expect(opened.sandboxes.start(specFor(slot, argv, base))).rejects.toMatchObject({
        code: "InvalidParams",
      });
    }
    const fine = await shell(opened.sandboxes, `pwd; cat ${canaries.dir}/secret`, {
      slot,
      ...base,
      cwd: "/work",
    });
    expect(fine.stdout).toBe("/work\n");
    expect(fine.stderr).not.toContain(SECRET);
    expect(await canaries.look()).toEqual(before);
  });
});
