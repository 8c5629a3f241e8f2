import { execFile, execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { chmod, mkdir, readdir, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { newInstanceName } from "#sandbox/instance.ts";
import { openJanitor } from "#sandbox/janitor/janitor.ts";
import type { CleanSource } from "#sandbox/janitor/source.ts";
import { allFamilies } from "#sandbox/limits/cgroup-files.ts";
import { allProcesses, isRunning, type ProcessInfo, signal, treeOf } from "#sandbox/process-tree.ts";
import { lastJson, makeReadableClone } from "#sandbox/testing/clone.ts";
import { makeTemporary, openForTest, shell, silent, until } from "#sandbox/testing/harness.ts";
import { processesNaming, sandboxedProcesses } from "../support/leftovers.ts";

const isRoot = process.getuid?.() === 0;
const DAY = 24 * 3_600_000;
const MIB = 1024 * 1024;
/** Many servers come and go, on a machine that may have other things to do. */
const SLOW_MS = 900_000;
const CHURN = fileURLToPath(new URL("../../sandbox/testing/churn.ts", import.meta.url));
const SERVER = fileURLToPath(new URL("../../sandbox/testing/server.ts", import.meta.url));
const CRASH = fileURLToPath(new URL("../../sandbox/testing/crash.ts", import.meta.url));

interface Crash {
  how: string;
  processes: number;
  survivors: number;
  removed: number;
  left: ProcessInfo[];
  homes: number;
  groups: string[];
}

function expectAllCleared({ results, bystanders }: { results: Crash[]; bystanders: ProcessInfo[] }): void {
  expect(results.length).toBeGreaterThan(1);
  for (const { how, processes, survivors, removed, ...rest } of results) {
    expect(processes).toBeGreaterThan(16);
    // A launcher that is stopped ends nothing, and nothing dies by itself while it is there.
    if (how === "SIGSTOP") expect(survivors).toBe(processes);
    expect(removed).toBeGreaterThan(0);
    expect(rest).toMatchObject({ left: [], homes: 1, groups: [] });
  }
  expect(bystanders).toEqual([]);
}

/** A log that keeps the ids of what could not be removed. */
function failures() {
  const ids: string[] = [];
  const error = (facts: { id?: string }) => ids.push(String(facts.id));
  return { ids, log: { ...silent, error } as unknown as typeof silent };
}

/** What there is on this machine of servers with this data directory, besides the living ones' own. */
async function leftovers(dataDir: string, instances: ReadonlySet<string>): Promise<string[]> {
  const groups = await Promise.all(
    (await allFamilies()).map(async (family) =>
      (await readdir(family).catch(() => [])).map((name) => join(family, name)),
    ),
  );
  const shared = (await readdir(tmpdir())).filter((name) => name.startsWith("cds-"));
  return [
    ...sandboxedProcesses(dataDir),
    ...[...groups.flat(), ...shared].filter((name) =>
      [...instances].some((instance) => name.includes(instance)),
    ),
  ];
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "latin1");
  } catch {
    return "";
  }
}

const launcherOf = (server: number | undefined) =>
  [...allProcesses().values()].find(
    ({ ppid, pid }) => ppid === server && commandOf(pid).includes("launcher/main.ts"),
  );

/** Numbers from 0 to 1, the same in every run. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

describe("a server killed with its launcher", { timeout: SLOW_MS }, () => {
  it("[MU-7] leaves nothing that another's janitor does not end, and nothing else is touched", async () => {
    const dataDir = await makeTemporary();
    const { stdout } = await promisify(execFile)(process.execPath, [CRASH, dataDir], { timeout: SLOW_MS });
    expectAllCleared(lastJson(stdout));
    await rm(dataDir, { recursive: true });
  });

  it.runIf(isRoot)("[MU-7] the same where all of that is an ordinary user's", async () => {
    await using clone = await makeReadableClone();
    expectAllCleared(lastJson(await clone.run("sandbox/testing/crash.ts", SLOW_MS)));
  });

  it("[MU-7] at any moment: while it starts, clears up after others, starts and ends sandboxes", async () => {
    const random = seeded(7);
    // So long that sockets have to stand in a shared directory.
    const top = await makeTemporary();
    const dataDir = join(top, "x".repeat(90));
    await mkdir(dataDir);
    await chmod(dataDir, 0o711);
    const token = `churn-${randomBytes(8).toString("hex")}`;
    const instances = new Set<string>();
    const launchers: ProcessInfo[] = [];
    const homes = () => readdir(join(dataDir, "sandbox")).catch(() => []);
    const homesOf = async (pid = 0) => (await homes()).filter((name) => name.split("-")[1] === String(pid));
    for (let round = 0; round < 20; round += 1) {
      const args = [CHURN, dataDir, token, ...(round % 2 === 0 ? [] : ["rlimits"])];
      const server = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
      const point = Math.floor(random() * 3);
      if (point === 0) await until(async () => (await homesOf(server.pid)).length > 0);
      else if (point === 1) await until(() => launcherOf(server.pid));
      else await once(server.stdout, "data");
      await sleep(random() * 200);
      const launcher = launcherOf(server.pid);
      if (launcher !== undefined) {
        launchers.push(launcher);
        signal(launcher.pid, random() < 0.5 ? "SIGSTOP" : "SIGKILL");
      }
      server.kill("SIGKILL");
      await once(server, "exit");
      for (const name of await homes()) instances.add(name);
    }
    expect(instances.size).toBe(20);
    expect(launchers.length).toBeGreaterThan(10);
    const { ids, log } = failures();
    const last = await openForTest({ dataDir, log });
    const janitor = openJanitor({
      sources: last.sandboxes.orphans,
      places: [dataDir],
      log,
      everyMs: DAY,
    });
    await janitor.run();
    expect(ids.filter((id) => [...instances].some((name) => id.includes(name)))).toEqual([]);
    await until(() => processesNaming(token).length === 0);
    expect(await leftovers(dataDir, instances)).toEqual([]);
    expect(launchers.filter(isRunning)).toEqual([]);
    expect(await readdir(join(dataDir, "sandbox"))).toHaveLength(1);
    expect((await shell(last.sandboxes, "echo fine")).stdout).toBe("fine\n");
    await janitor.close();
    await last[Symbol.asyncDispose]();
    await rm(top, { recursive: true });
  });

  it("[MU-7] is cleared up after by two at once, who do not get in each other's way", async () => {
    const dataDir = await makeTemporary();
    const pair = [await openForTest({ dataDir }), await openForTest({ dataDir })];
    const { ids, log } = failures();
    const janitors = pair.map(({ sandboxes }) =>
      openJanitor({ sources: sandboxes.orphans, places: [dataDir], log, everyMs: DAY }),
    );
    for (let round = 0; round < 3; round += 1) {
      const server = spawn(process.execPath, [SERVER, dataDir, "2"], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      const [line] = await once(server.stdout, "data");
      const { launcher, started } = JSON.parse(String(line));
      const tree = treeOf(launcher, allProcesses());
      signal(launcher, "SIGSTOP");
      server.kill("SIGKILL");
      await once(server, "exit");
      await Promise.all(janitors.map((janitor) => janitor.run()));
      expect(ids.filter((id) => id.includes(`-${server.pid}-`))).toEqual([]);
      expect(tree.filter(isRunning)).toEqual([]);
      // Which of the two saw the other's work half done may leave it to the next round.
      for (const janitor of janitors) await janitor.run();
      expect(existsSync(started[0].dir)).toBe(false);
      expect(await readdir(join(dataDir, "sandbox"))).toHaveLength(2);
    }
    await Promise.all(janitors.map((janitor) => janitor.close()));
    for (const opened of pair) await opened[Symbol.asyncDispose]();
    await rm(dataDir, { recursive: true });
  });
});

describe("what cannot be removed", () => {
  it.runIf(isRoot)("[MU-7] stops neither the janitor nor what else there is to remove", async () => {
    const dataDir = await makeTemporary();
    const base = join(dataDir, "sandbox");
    await using opened = await openForTest({ dataDir });
    const [namespace, pid, started] = newInstanceName().split("-");
    const [stuck = "", other = ""] = [1, 2].map((n) =>
      join(base, `${namespace}-${pid}-${Number(started) - n}-1`),
    );
    for (const home of [stuck, other]) {
      await mkdir(join(home, "work"), { recursive: true });
      await writeFile(join(home, "work", "file"), "x");
    }
    try {
      execFileSync("/usr/bin/chattr", ["+i", join(stuck, "work")], { stdio: "ignore" });
    } catch {
      // A file system without such a mark.
      await rm(stuck, { recursive: true });
    }
    const wasStuck = existsSync(stuck);
    const { ids, log } = failures();
    const sources = opened.sandboxes.orphans;
    await using janitor = openJanitor({ sources, places: [dataDir], log, everyMs: DAY });
    const report = await until(() => janitor.last);
    expect(report.occasion).toBe("start");
    expect(report.byReason.orphan).toBeGreaterThan(0);
    expect(ids.includes(stuck)).toBe(wasStuck);
    expect(existsSync(other)).toBe(false);
    if (wasStuck) {
      expect(existsSync(join(stuck, "work", "file"))).toBe(true);
      execFileSync("/usr/bin/chattr", ["-i", join(stuck, "work")]);
      await janitor.run();
    }
    expect(existsSync(stuck)).toBe(false);
    await janitor.close();
    await opened[Symbol.asyncDispose]();
    await rm(dataDir, { recursive: true });
  });
});

describe("a disk that really fills up", () => {
  it.runIf(isRoot)("[MU-7] is emptied from 0.85 to below 0.68, the longest idle first", async () => {
    const disk = await makeTemporary();
    execFileSync("/bin/mount", ["-t", "tmpfs", "-o", "size=10m", "tmpfs", disk]);
    try {
      for (let index = 0; index < 9; index += 1) {
        const home = join(disk, String(index));
        await mkdir(home);
        await writeFile(join(home, "data"), Buffer.alloc(MIB));
        const then = new Date(Date.now() - (20 - index) * 60_000);
        await utimes(home, then, then);
      }
      const source: CleanSource = {
        name: "test",
        list: async () =>
          (await readdir(disk)).map((name) => ({
            id: name,
            path: join(disk, name),
            bytes: MIB,
            idleSince: Date.now() - (20 - Number(name)) * 60_000,
            async remove() {
              await rm(join(disk, name), { recursive: true });
              return "removed";
            },
          })),
      };
      await using janitor = openJanitor({ sources: [source], places: [disk], log: silent, everyMs: DAY });
      const report = await until(() => janitor.last);
      expect(report).toMatchObject({ removed: 3, byReason: { disk: 3, age: 0 }, freedBytes: 3 * MIB });
      expect(report.diskBefore).toBeGreaterThan(0.85);
      expect(report.diskAfter).toBeLessThan(0.68);
      expect((await readdir(disk)).sort()).toEqual(["3", "4", "5", "6", "7", "8"]);
    } finally {
      execFileSync("/bin/umount", [disk]);
      await rm(disk, { recursive: true });
    }
  });
});
