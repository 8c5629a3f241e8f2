import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import {
  chown,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  rmdir,
  stat,
  symlink,
  utimes,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { newInstanceName } from "../instance.ts";
import { allFamilies, cgroupMounts } from "../limits/cgroup-files.ts";
import { allProcesses, isRunning, type ProcessInfo, readProcess } from "../process-tree.ts";
import { makeTemporary, openForTest, silent, specFor, until } from "../testing/harness.ts";
import { directorySource, Homes, noteLauncher } from "./orphan-directories.ts";
import { fileSource } from "./orphan-files.ts";
import { mountSource, mountsBelow } from "./orphan-mounts.ts";
import { processSource } from "./orphan-processes.ts";
import { orphanSources } from "./orphans.ts";
import { clearOrphans } from "./removal.ts";
import type { CleanSource } from "./source.ts";

const isRoot = process.getuid?.() === 0;
const SLOT_USER = 1_900_000_000 + 60_000;
const [namespace, pid, started] = newInstanceName().split("-");
const ALIVE = `${namespace}-${pid}-${started}-1`;
const DEAD = `${namespace}-${pid}-${Number(started) - 1}-1`;
const FOREIGN = `1-${pid}-${started}-1`;

let base: string;
const children: ChildProcess[] = [];
const pids: number[] = [];
beforeEach(async () => {
  base = join(await makeTemporary(), "a base");
  await mkdir(base);
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  for (const each of pids.splice(0)) {
    try {
      process.kill(each, "SIGKILL");
    } catch {
      // It has ended, as it should.
    }
  }
  await rm(join(base, ".."), { recursive: true });
});

const clear = () => clearOrphans(orphanSources({ base, own: join(base, ALIVE) }), silent, 20_000);

interface Who {
  cwd?: string;
  uid?: number;
  gid?: number;
  detached?: boolean;
}

/** Start a program that runs until it is killed, and says so on its output. */
async function start(file: string, args: string[], who: Who = {}): Promise<ProcessInfo> {
  const child = spawn(file, args, {
    stdio: ["ignore", "pipe", "ignore"],
    env: { PATH: "/usr/bin:/bin" },
    ...who,
  });
  children.push(child);
  const [line] = await once(child.stdout, "data");
  const last = Number(String(line).trim().split("\n").at(-1));
  const found = readProcess(Number.isInteger(last) && last > 0 ? last : (child.pid ?? 0));
  if (found === undefined) throw new Error("it has ended");
  pids.push(found.pid);
  return found;
}

const launcherFile = "sandbox/launcher/main.ts";
const WAIT = "echo ready; exec sleep 1000";
const ROOT = [
  "--unshare-user",
  "--unshare-pid",
  "--die-with-parent",
  "--ro-bind",
  "/",
  "/",
  "--dev",
  "/dev",
  "--proc",
  "/proc",
];

/** A program that sees `passwd` of this instance's directory at /etc/passwd, as in a sandbox. */
async function sandboxOf(instance: string): Promise<ProcessInfo> {
  const etc = join(base, instance, "etc");
  await mkdir(etc, { recursive: true });
  await writeFile(join(etc, "passwd"), "");
  await start("bwrap", [...ROOT, "--ro-bind", join(etc, "passwd"), "/etc/passwd", "sh", "-c", WAIT]);
  const marked = [...allProcesses().values()].filter(({ command }) => command === "sleep");
  const infos = await Promise.all(
    marked.map(async (info) => {
      const mounts = await readFile(`/proc/${info.pid}/mountinfo`, "latin1").catch(() => "");
      return mounts.includes(`/${instance}/etc/passwd`) ? [info] : [];
    }),
  );
  const found = infos.flat()[0];
  if (found === undefined) throw new Error("not found");
  return found;
}

/** A program in a session whose leader has gone. */
const forsaken = (program: string, who: Who = {}) =>
  start("setsid", ["sh", "-c", `${program} & echo $!`], { ...who, detached: false });

describe("processes", () => {
  it("in a sandbox of a server that is no more are ended, those of living and foreign ones are not", async () => {
    const [dead, alive, foreign] = [await sandboxOf(DEAD), await sandboxOf(ALIVE), await sandboxOf(FOREIGN)];
    await clear();
    expect([dead, alive, foreign].map(isRunning)).toEqual([false, true, true]);
    expect(await readdir(base)).toEqual([FOREIGN, ALIVE].sort());
  });

  it("of strangers are left alone, whatever they look like", async () => {
    const home = join(base, DEAD);
    await mkdir(join(home, "etc"), { recursive: true });
    await writeFile(join(home, "etc", "passwd"), "");
    const strangers = [
      // Named after a dead server, working in its directory, with its files open.
      await start("sh", ["-c", `exec 3<etc/passwd; echo ready; exec tail -f /dev/null "$0"`, DEAD], {
        cwd: home,
      }),
      // Somebody else's bubblewrap, in a session of its own or in one without a leader.
      await start("bwrap", [...ROOT, "sh", "-c", WAIT], { detached: true }),
      await start("setsid", ["sh", "-c", `bwrap ${ROOT.join(" ")} sleep 1000 & echo $!`]),
      // A leader's number that was written down belongs to another process by now, or there is none any more.
      await start("sh", ["-c", WAIT], { detached: true }),
      await forsaken("sleep 1000"),
      // Somebody reads the launcher's source, or runs it for a living server.
      await start("sh", ["-c", `echo ready; exec tail -f /dev/null ${launcherFile} ${DEAD}`]),
      await start("sh", ["-c", `echo ready; exec tail -f /dev/null ${launcherFile} ${ALIVE}`], {
        detached: true,
      }),
    ];
    const [, , , leader, led] = strangers;
    const records = [`${leader?.pid} ${Number(leader?.started) - 1}`, `${led?.session} 1`, "garbage", ""];
    await writeFile(join(home, "launchers"), records.join("\n"));
    if (isRoot) {
      const who = { uid: SLOT_USER, gid: SLOT_USER, cwd: "/" };
      strangers.push(
        // One of the users that are ours alone, but neither bubblewrap nor without a leader.
        await forsaken("sleep 1000", who),
        await start("bwrap", [...ROOT, "sh", "-c", WAIT], { ...who, detached: true }),
        // bubblewrap by name only.
        await forsaken(`bash -c 'exec -a bwrap sleep 1000'`, who),
      );
    }
    await clear();
    expect(strangers.map((info) => [info.command, isRunning(info)])).toEqual(
      strangers.map((info) => [info.command, true]),
    );
    expect(await readdir(base)).toEqual([]);
  });

  it("that lead or are left in a launcher's session are ended, by what its server wrote down", async () => {
    const home = join(base, DEAD);
    await mkdir(home);
    // Not by its program, which could be any Node, but by what it runs, and for whom.
    const wait = "setInterval(() => undefined, 1000); console.log('ready')";
    await mkdir(join(base, "sandbox", "launcher"), { recursive: true });
    await writeFile(join(base, launcherFile), wait);
    const launcher = await start(process.execPath, [join(base, launcherFile), DEAD], { detached: true });
    process.kill(launcher.pid, "SIGSTOP");
    const gone = `bwrap ${ROOT.join(" ")} sleep 1000 & sleep 1000 & echo $!`;
    const other = await start("setsid", ["sh", "-c", gone]);
    await writeFile(join(home, "launchers"), `${other.session} 1\n`);
    const half = [...allProcesses().values()].filter(
      ({ session, command }) => session === other.session && command === "bwrap",
    );
    expect(half.length).toBeGreaterThan(0);
    await clear();
    expect(isRunning(launcher)).toBe(false);
    expect(half.filter(isRunning)).toEqual([]);
    // Not one of our programs.
    expect(isRunning(other)).toBe(true);
    expect(await readdir(base)).toEqual(["sandbox"]);
  });

  it.runIf(isRoot)("of a slot's user in bubblewrap that nobody leads any more are ended", async () => {
    const who = { uid: SLOT_USER, gid: SLOT_USER, cwd: "/" };
    const orphan = await forsaken(`bwrap ${ROOT.join(" ")} sleep 1000`, who);
    await until(() => readProcess(orphan.pid)?.command === "bwrap");
    await clear();
    expect(isRunning(orphan)).toBe(false);
  });
});

describe.runIf(isRoot)("control groups", () => {
  it("in every hierarchy are emptied and removed, also of what is frozen or forks without end", async () => {
    const groups = (await allFamilies()).map((family) => join(family, DEAD, "old"));
    for (const group of groups) await mkdir(group, { recursive: true });
    const enter = groups.map((group) => `echo $$ > ${group}/cgroup.procs`).join("\n");
    const forking = "while :; do sleep 0.05 & done";
    const forker = await start("sh", ["-c", `${enter}\necho $$; ${forking}`]);
    const frozen = await start("sh", ["-c", `${enter}\n${WAIT}`]);
    const freezer = groups.find((group) => existsSync(join(group, "freezer.state")));
    if (freezer !== undefined) await writeFile(join(freezer, "freezer.state"), "FROZEN");
    await clear();
    expect([forker, frozen].filter(isRunning)).toEqual([]);
    expect(groups.filter((group) => existsSync(join(group, "..")))).toEqual([]);
  });

  it("of others that hold a process still make it a failure, told with its number", async () => {
    const freezer = (await cgroupMounts()).find(({ controllers }) => controllers.includes("freezer"));
    if (freezer === undefined) return;
    const group = join(freezer.path, `cds-test-${process.pid}`);
    await mkdir(group);
    const dead = await sandboxOf(DEAD);
    await writeFile(join(group, "cgroup.procs"), String(dead.pid));
    await writeFile(join(group, "freezer.state"), "FROZEN");
    const [found] = await processSource(async () => [], 300).list();
    await expect(found?.remove()).rejects.toMatchObject({
      code: "Timeout",
      message: expect.stringContaining(String(dead.pid)),
    });
    await writeFile(join(group, "freezer.state"), "THAWED");
    await until(() => !isRunning(dead));
    expect(await found?.remove()).toBe("gone");
    await until(() =>
      rmdir(group).then(
        () => true,
        () => false,
      ),
    );
  });
});

describe("directories", () => {
  it("stay while something of them runs or is mounted, and take their sockets along", async () => {
    const sockets = await mkdtemp(join(tmpdir(), `cds-${DEAD}-`));
    const strange = await mkdtemp(join(tmpdir(), "cds-strange-"));
    const dead = await sandboxOf(DEAD);
    await writeFile(join(base, DEAD, "sockets"), sockets);
    await mkdir(join(base, ALIVE));
    const homes = new Homes(base, join(base, ALIVE));
    const source = directorySource(homes);
    const [found] = await source.list();
    expect(await found?.remove()).toBe("busy");
    process.kill(dead.pid, "SIGKILL");
    await until(() => !isRunning(dead));
    await until(async () => (await found?.remove()) === "removed");
    expect(await found?.remove()).toBe("gone");
    await expect(stat(sockets)).rejects.toThrow(/ENOENT/);
    // One who can write a marker could otherwise choose what is removed.
    await mkdir(join(base, DEAD));
    await writeFile(join(base, DEAD, "sockets"), strange);
    await clear();
    expect(await readdir(base)).toEqual([ALIVE]);
    expect((await stat(strange)).isDirectory()).toBe(true);
    await rm(strange, { recursive: true });
  });

  it("of another process namespace go only when they have not moved for long, by two clocks", async () => {
    let steady = 0;
    const home = join(base, FOREIGN);
    await mkdir(home);
    await mkdir(join(base, ALIVE));
    const source = directorySource(new Homes(base, join(base, ALIVE), () => steady));
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
    await clear();
    expect(await readdir(base)).toContain(FOREIGN);
  });

  it("of the living are touched in every round, for servers of other process namespaces", async () => {
    const own = join(base, ALIVE);
    await mkdir(own);
    await utimes(own, 1, 1);
    await clear();
    expect((await stat(own)).mtimeMs).toBeGreaterThan(1000);
    await rm(own, { recursive: true });
    await clear();
  });

  it("hold whose launcher ran, unless it has ended already", async () => {
    await mkdir(join(base, DEAD));
    await noteLauncher(join(base, DEAD), 999_999_999);
    expect(await readdir(join(base, DEAD))).toEqual([]);
    await noteLauncher(join(base, DEAD), process.pid);
    const homes = new Homes(base, join(base, ALIVE));
    expect(await homes.launchers()).toEqual([{ instance: DEAD, pid: process.pid, started }]);
  });

  it("are no matter when the one above is gone", async () => {
    const missing = join(base, "missing");
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
    for (const name of [...names.slice(1), ...kept]) await writeFile(join(base, name), "12345");
    await mkdir(join(base, names[0] ?? "", "deep"), { recursive: true });
    await symlink("/etc", join(base, names[0] ?? "", "link"));
    if (isRoot) {
      kept.push(`cds-${DEAD}-stranger`);
      await writeFile(join(base, `cds-${DEAD}-stranger`), "");
      await chown(join(base, `cds-${DEAD}-stranger`), 65_534, 65_534);
    }
    const source = fileSource("files", [base, join(base, "missing")]);
    const found = await source.list();
    expect(found.map(({ bytes }) => bytes).sort()).toEqual([0, 5, 5, 5]);
    for (const each of found) expect(await each.remove()).toBe("removed");
    expect(await found[0]?.remove()).toBe("gone");
    expect((await readdir(base)).sort()).toEqual(kept.sort());
    expect((await lstat("/etc")).isDirectory()).toBe(true);
  });
});

describe.runIf(isRoot)("mounts", () => {
  const mountAt = (source: string, target: string) => execFileSync("mount", ["--bind", source, target]);

  it("below a dead server's directory are undone before it is removed, and what was mounted stays", async () => {
    const precious = await makeTemporary();
    await writeFile(join(precious, "keep"), "kept");
    const target = join(base, DEAD, "a work\tdirectory");
    await mkdir(target, { recursive: true });
    mountAt(precious, target);
    mountAt(precious, target);
    expect(await mountsBelow([base])).toEqual([target, target]);
    // In use: nobody waits for that.
    const user = await start("sh", ["-c", WAIT], { cwd: target });
    await clear();
    expect(await mountsBelow([base])).toEqual([]);
    expect(await readdir(base)).toEqual([]);
    expect(await readFile(join(precious, "keep"), "utf8")).toBe("kept");
    expect(isRunning(user)).toBe(true);
    await rm(precious, { recursive: true });
  });

  it("that cannot be undone keep the directory, and those of the living are no matter", async () => {
    const precious = await makeTemporary();
    await writeFile(join(precious, "keep"), "kept");
    for (const name of [DEAD, ALIVE]) {
      await mkdir(join(base, name, "x"), { recursive: true });
      mountAt(precious, join(base, name, "x"));
    }
    const homes = new Homes(base, join(base, ALIVE));
    const found = await directorySource(homes).list();
    expect(await found[0]?.remove()).toBe("busy");
    const [mounted] = await mountSource(homes.deadPaths).list();
    execFileSync("umount", [join(base, DEAD, "x")]);
    await expect(mounted?.remove()).rejects.toThrow(/not mounted|no mount point/i);
    await clear();
    expect(await mountsBelow([base])).toEqual([join(base, ALIVE, "x")]);
    execFileSync("umount", [join(base, ALIVE, "x")]);
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
