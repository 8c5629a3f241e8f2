import { execFileSync } from "node:child_process";
import {
  chown,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { isRunning, readProcess, signal } from "../process-tree.ts";
import { makeTemporary, openForTest, silent, specFor, until } from "../testing/harness.ts";
import { ALIVE, DEAD, FOREIGN, Scene, STARTED, WAIT } from "../testing/orphans.ts";
import { directorySource, Homes, noteLauncher } from "./orphan-directories.ts";
import { fileSource } from "./orphan-files.ts";
import { mountSource, mountsBelow } from "./orphan-mounts.ts";
import { orphanSources } from "./orphans.ts";
import { clearOrphans } from "./removal.ts";
import type { CleanSource } from "./source.ts";

const isRoot = process.getuid?.() === 0;

let scene: Scene;
beforeEach(async () => {
  scene = await Scene.open();
});
afterEach(() => scene[Symbol.asyncDispose]());

describe("directories", () => {
  it("stay while something of them runs or is mounted, and take their sockets along", async () => {
    const sockets = await mkdtemp(join(tmpdir(), `cds-${DEAD}-`));
    const strange = await mkdtemp(join(tmpdir(), "cds-strange-"));
    await mkdir(join(scene.base, DEAD));
    await mkdir(join(scene.base, ALIVE));
    const homes = new Homes(scene.base, join(scene.base, ALIVE));
    const source = directorySource(homes);
    const [found] = await source.list();
    // Any other server that starts on this machine ends it: then once more.
    const dead = await until(async () => {
      const running = await scene.sandboxOf(DEAD);
      return (await found?.remove()) === "busy" && running;
    });
    await writeFile(join(scene.base, DEAD, "sockets"), sockets);
    signal(dead.pid, "SIGKILL");
    await until(() => !isRunning(dead));
    await until(async () => (await found?.remove()) === "removed");
    expect(await found?.remove()).toBe("gone");
    await expect(stat(sockets)).rejects.toThrow(/ENOENT/);
    // One who can write a marker could otherwise choose what is removed.
    await mkdir(join(scene.base, DEAD));
    await writeFile(join(scene.base, DEAD, "sockets"), strange);
    await scene.clear();
    expect(await readdir(scene.base)).toEqual([ALIVE]);
    expect((await stat(strange)).isDirectory()).toBe(true);
    await rm(strange, { recursive: true });
  });

  it("of another process namespace go only when they have not moved for long, by two clocks", async () => {
    let steady = 0;
    const home = join(scene.base, FOREIGN);
    await mkdir(home);
    await mkdir(join(scene.base, ALIVE));
    const source = directorySource(new Homes(scene.base, join(scene.base, ALIVE), () => steady));
    const find = async () => (await source.list()).map(({ id }) => id);
    const old = new Date(Date.now() - 25 * 3_600_000);
    expect(await find()).toEqual([]);
    steady += 2 * 3_600_000;
    // Still young.
    expect(await find()).toEqual([]);
    await utimes(home, old, old);
    // Old, but it has just moved.
    expect(await find()).toEqual([]);
    steady += 2 * 3_600_000;
    expect(await find()).toEqual([home]);
    await scene.clear();
    expect(await readdir(scene.base)).toContain(FOREIGN);
  });

  it("of the living are touched in every round, for servers of other process namespaces", async () => {
    const own = join(scene.base, ALIVE);
    await mkdir(own);
    await utimes(own, 1, 1);
    await scene.clear();
    expect((await stat(own)).mtimeMs).toBeGreaterThan(1000);
    await rm(own, { recursive: true });
    await scene.clear();
  });

  it("hold whose launcher ran, unless it has ended already", async () => {
    await mkdir(join(scene.base, DEAD));
    await noteLauncher(join(scene.base, DEAD), 999_999_999);
    expect(await readdir(join(scene.base, DEAD))).toEqual([]);
    await noteLauncher(join(scene.base, DEAD), process.pid);
    const homes = new Homes(scene.base, join(scene.base, ALIVE));
    expect(await homes.launchers()).toEqual([{ instance: DEAD, pid: process.pid, started: STARTED }]);
  });

  it("are no matter when the one above is gone", async () => {
    const missing = join(scene.base, "missing");
    const report: string[] = [];
    const log = { ...silent, error: () => report.push("error") } as unknown as typeof silent;
    await clearOrphans(orphanSources({ base: missing, own: missing }), log, 20_000);
    expect(report).toEqual([]);
  });
});

describe("files in shared directories", () => {
  it("are removed when they are ours and their server is no more", async () => {
    const names = [`cds-${DEAD}-x`, `cds-${DEAD}`, `cds-micro-${DEAD}`, `cds-${DEAD}.ram`];
    const kept = [`cds-${ALIVE}-x`, `cds-${FOREIGN}`, DEAD, `cds-test-x-${DEAD}`, "other"];
    for (const name of [...names.slice(1), ...kept]) await writeFile(join(scene.base, name), "12345");
    await mkdir(join(scene.base, names[0] ?? "", "deep"), { recursive: true });
    await symlink("/etc", join(scene.base, names[0] ?? "", "link"));
    if (isRoot) {
      kept.push(`cds-${DEAD}-stranger`);
      await writeFile(join(scene.base, `cds-${DEAD}-stranger`), "");
      await chown(join(scene.base, `cds-${DEAD}-stranger`), 65_534, 65_534);
    }
    const source = fileSource("files", [scene.base, join(scene.base, "missing")]);
    const found = await source.list();
    expect(found.map(({ bytes }) => bytes).sort()).toEqual([0, 5, 5, 5]);
    for (const each of found) expect(await each.remove()).toBe("removed");
    expect(await found[0]?.remove()).toBe("gone");
    expect((await readdir(scene.base)).sort()).toEqual(kept.sort());
    expect((await lstat("/etc")).isDirectory()).toBe(true);
  });
});

describe.runIf(isRoot)("mounts", () => {
  const mountAt = (source: string, target: string) => execFileSync("/bin/mount", ["--bind", source, target]);

  it("below a dead server's directory are undone before it is removed, and what was mounted stays", async () => {
    const precious = await makeTemporary();
    await writeFile(join(precious, "keep"), "kept");
    const target = join(scene.base, DEAD, "a work\tdirectory");
    await mkdir(target, { recursive: true });
    mountAt(precious, target);
    mountAt(precious, target);
    expect(await mountsBelow([scene.base])).toEqual([target, target]);
    // In use: nobody waits for that.
    const user = await scene.start("sh", ["-c", WAIT], { cwd: target });
    await scene.clear();
    expect(await mountsBelow([scene.base])).toEqual([]);
    expect(await readdir(scene.base)).toEqual([]);
    expect(await readFile(join(precious, "keep"), "utf8")).toBe("kept");
    expect(isRunning(user)).toBe(true);
    await rm(precious, { recursive: true });
  });

  it("that cannot be undone keep the directory, and those of the living are no matter", async () => {
    const precious = await makeTemporary();
    await writeFile(join(precious, "keep"), "kept");
    for (const name of [DEAD, ALIVE]) {
      await mkdir(join(scene.base, name, "x"), { recursive: true });
      mountAt(precious, join(scene.base, name, "x"));
    }
    const homes = new Homes(scene.base, join(scene.base, ALIVE));
    const found = await directorySource(homes).list();
    expect(await found[0]?.remove()).toBe("busy");
    const [mounted] = await mountSource(homes.deadPaths).list();
    execFileSync("/bin/umount", [join(scene.base, DEAD, "x")]);
    await expect(mounted?.remove()).rejects.toThrow(/not mounted|no mount point/i);
    await scene.clear();
    expect(await mountsBelow([scene.base])).toEqual([join(scene.base, ALIVE, "x")]);
    execFileSync("/bin/umount", [join(scene.base, ALIVE, "x")]);
    expect(await readFile(join(precious, "keep"), "utf8")).toBe("kept");
    await rm(precious, { recursive: true });
  });
});

describe("at the start of a server", () => {
  it("what cannot be removed is told, and stops neither the others nor the server", async () => {
    const told: string[] = [];
    const log = {
      ...silent,
      error: (_: object, text: string) => told.push(text),
    } as unknown as typeof silent;
    let removed = 0;
    const remove = async () => {
      removed += 1;
      return "removed" as const;
    };
    const never = () => expect.fail("has an owner");
    const sources: CleanSource[] = [
      { name: "a", list: () => Promise.reject(new Error("no")) },
      {
        name: "b",
        list: async () => [{ id: "1", idleSince: null, remove: () => Promise.reject(new Error("no")) }],
      },
      {
        name: "c",
        list: async () => [
          { id: "2", idleSince: null, remove },
          { id: "3", idleSince: 0, remove: never },
        ],
      },
    ];
    await clearOrphans(sources, log, 1000);
    expect(removed).toBe(1);
    expect(told).toEqual(["could not find out what there is to clean up", "could not be cleaned up"]);
  });

  it("it writes down its launcher, and a sandbox leaves neither IPC objects nor keys of its user", async () => {
    await using opened = await openForTest();
    const { sandboxes } = opened;
    const launcher = readProcess(sandboxes.launcherPid ?? 0);
    const written = await readFile(join(sandboxes.directory, "launchers"), "utf8");
    expect(written).toBe(`${launcher?.pid} ${launcher?.started}\n`);
    const slot = await sandboxes.slots.acquire();
    const script = "ipcmk -M 4096; ipcmk -S 1; ipcmk -Q; cat /proc/sysvipc/shm | wc -l; sleep 1000";
    const running = await sandboxes.start(specFor(slot, ["sh", "-c", script]));
    await until(async () => String(running.stdout.read() ?? "").includes("2"));
    const left = async () => {
      const tables = ["sysvipc/shm", "sysvipc/sem", "sysvipc/msg"];
      const objects = await Promise.all(tables.map((name) => readFile(`/proc/${name}`, "utf8")));
      const keys = (await readFile("/proc/key-users", "utf8"))
        .split("\n")
        .filter((line) => Number(/^\s*(\d+):/.exec(line)?.[1] ?? -1) === slot.uid)
        .filter((line) => !/^\s*\d+:\s+\d+\s+0\//.test(line));
      return [
        ...objects.flatMap((text) => text.split("\n").filter((line) => /\b19000\d{5}\b/.test(line))),
        ...keys,
      ];
    };
    expect(await left()).toEqual([]);
    await slot.release();
    expect(await left()).toEqual([]);
  });
});
