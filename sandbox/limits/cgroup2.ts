import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { allProcesses, signal, treeOf } from "../process-tree.ts";
import type { SandboxLimits } from "../types.ts";
import {
  cgroupMounts,
  FAMILY,
  field,
  fieldOf,
  makeDirectories,
  ownPath,
  pidsIn,
  read,
  readNow,
  removeGroup,
  write,
} from "./cgroup-files.ts";
import { FIRST_WEIGHT } from "./credit.ts";
import { CPU_PERIOD_US, type GroupUse, type LimitDriver, OWN_PROCESSES } from "./limits.ts";
import { type GroupKind, openStocked } from "./stocked.ts";

const FREEZE_ATTEMPTS = 400;
const FREEZE_WAIT_MS = 5;

/** Files of the v2 core, there without any controller: also what a hybrid v1 machine offers. */
export const holdGroup = (group: string, held: boolean) => write(group, "cgroup.freeze", held ? 1 : 0);

export async function groupSettled(group: string, frozen: boolean): Promise<void> {
  for (let attempt = 0; attempt < FREEZE_ATTEMPTS; attempt += 1) {
    if ((await field(group, "cgroup.events", "frozen")) === Number(frozen)) return;
    await sleep(FREEZE_WAIT_MS);
  }
  throw new Error(`the group did not ${frozen ? "freeze" : "thaw"} in time`);
}

export async function killGroup(group: string): Promise<void> {
  try {
    await write(group, "cgroup.kill", 1);
  } catch {
    // Before Linux 5.14 there is no such file; what forks meanwhile is met by the next round.
    for (const pid of await pidsIn(group)) signal(pid, "SIGKILL");
  }
}

export const cpuMsOf = (group: string) => fieldOf(readNow(group, "cpu.stat"), "usage_usec") / 1000;

export function usageOf(group: string): GroupUse {
  return { cpuMs: cpuMsOf(group), waitedMs: waitedMsOf(group) };
}

/** Kernels need not account for pressure. */
function waitedMsOf(group: string): number | null {
  try {
    const us = /^some .*total=(\d+)/.exec(readNow(group, "cpu.pressure"))?.[1];
    return us === undefined ? null : Number(us) / 1000;
  } catch {
    return null;
  }
}

/** Memory in use that could not be dropped at once: cached files do not count. */
async function workingSet(group: string): Promise<number> {
  const cached = await field(group, "memory.stat", "inactive_file");
  return Math.max(0, Number(await read(group, "memory.current")) - cached);
}

/** The cpu controller is not everywhere ours. */
async function setWeight(group: string, weight: number): Promise<void> {
  await write(group, "cpu.weight", weight).catch(() => undefined);
}

function groupAt(group: string): ReturnType<GroupKind["at"]> {
  return {
    join: [join(group, "cgroup.procs")],
    watched: false,
    prlimit: [],
    pids: () => pidsIn(group),
    use: () => usageOf(group),
    setWeight: (weight) => setWeight(group, weight),
    hold: (held) => holdGroup(group, held),
    settled: (held) => groupSettled(group, held),
    killAll: () => killGroup(group),
    stats: async () => ({
      memoryBytes: await workingSet(group),
      cpuMs: cpuMsOf(group),
      processes: (await pidsIn(group)).length,
    }),
    hits: async () => ({
      memory: await field(group, "memory.events", "oom_kill"),
      processes: await field(group, "pids.events", "max"),
    }),
  };
}

async function setLimits(group: string, limits: SandboxLimits): Promise<void> {
  await write(group, "memory.max", limits.memoryBytes);
  // Without this, what does not fit into memory would go on in swap.
  await write(group, "memory.swap.max", 0).catch(() => undefined);
  await write(group, "pids.max", limits.processes + OWN_PROCESSES);
  await setWeight(group, FIRST_WEIGHT);
  const ceiling = limits.cpus === undefined ? "max" : String(Math.round(limits.cpus * CPU_PERIOD_US));
  const written = write(group, "cpu.max", `${ceiling} ${CPU_PERIOD_US}`);
  // The cpu controller is not everywhere ours: then nobody can be promised a ceiling.
  await (limits.cpus === undefined ? written.catch(() => undefined) : written);
}

/**
 * Let `base` hand its controllers to its children. The kernel refuses while processes sit in `base` itself:
 * those of `movable` (us and what we started) go to a leaf beside the sandboxes; others' are left alone.
 */
async function delegate(base: string, movable: ReadonlySet<number>): Promise<void> {
  const available = (await read(base, "cgroup.controllers")).split(" ");
  for (const needed of ["memory", "pids"]) {
    if (!available.includes(needed)) throw new Error(`no ${needed} controller in ${base}`);
  }
  const wanted = ["memory", "pids", "cpu"]
    .filter((name) => available.includes(name))
    .map((name) => `+${name}`);
  try {
    await write(base, "cgroup.subtree_control", wanted.join(" "));
  } catch (error) {
    const inside = await pidsIn(base);
    if (inside.length === 0 || inside.some((pid) => !movable.has(pid))) throw error;
    const leaf = join(base, "supervisor");
    await mkdir(leaf, { recursive: true });
    for (const pid of inside) await write(leaf, "cgroup.procs", pid);
    await write(base, "cgroup.subtree_control", wanted.join(" "));
  }
}

/** Our own process, and what it has started. */
function ownProcesses(root: number): Set<number> {
  return new Set(treeOf(root, allProcesses()).map(({ pid }) => pid));
}

async function driverAt(base: string, instance: string, root: number): Promise<LimitDriver> {
  await delegate(base, ownProcesses(root));
  const family = join(base, FAMILY);
  const home = join(family, instance);
  return openStocked({
    async open() {
      await makeDirectories(family, home);
      for (const directory of [family, home]) await delegate(directory, new Set());
    },
    close: () => removeGroup(home),
    make: (name) => mkdir(join(home, name)),
    remove: (name) => removeGroup(join(home, name)),
    limit: (name, limits) => setLimits(join(home, name), limits),
    at: (name) => groupAt(join(home, name)),
    cpuMs: () => cpuMsOf(home),
  });
}

/**
 * Limits by control groups v2: below the process `root` (the server, or a launcher that systemd gave a
 * delegated scope), or at the hierarchy's own root. Throws when neither place is ours to divide.
 */
export async function openCgroup2(
  instance: string,
  root: { pid: number; cgroup?: string } = { pid: process.pid },
): Promise<LimitDriver> {
  const mount = (await cgroupMounts()).find(({ version }) => version === 2)?.path;
  if (mount === undefined) throw new Error("no cgroup v2 is mounted");
  const own = ownPath(mount, root.cgroup ?? (await readFile("/proc/self/cgroup", "utf8")));
  const failures: unknown[] = [];
  for (const base of new Set(root.cgroup === undefined ? [mount, own] : [own])) {
    try {
      return await driverAt(base, instance, root.pid);
    } catch (error) {
      failures.push(error);
    }
  }
  throw new AggregateError(failures, "no cgroup v2 directory can be divided");
}
