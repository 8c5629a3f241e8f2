import { mkdir } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { signal } from "../process-tree.ts";
import type { SandboxLimits } from "../types.ts";
import {
  cgroupMounts,
  FAMILY,
  field,
  makeDirectories,
  pidsIn,
  read,
  readNow,
  removeGroup,
  write,
} from "./cgroup-files.ts";
import { cpuMsOf, groupSettled, holdGroup, killGroup, usageOf } from "./cgroup2.ts";
import { FIRST_WEIGHT } from "./credit.ts";
import { CPU_PERIOD_US, type GroupUse, type LimitDriver, OWN_PROCESSES } from "./limits.ts";
import { type GroupKind, openStocked } from "./stocked.ts";

const FREEZE_ATTEMPTS = 400;
const FREEZE_WAIT_MS = 5;
/** What a process outside of any group weighs, and a group that weighs 100 as control groups v2 count. */
const GROUP_SHARES = 1024;
const NO_LIMIT = -1;

/** One directory per hierarchy a sandbox is in; `core` is the v2 one that most v1 machines have beside. */
interface Homes {
  memory: string;
  pids: string;
  cpu?: string;
  core?: string;
  freezer?: string;
  cpuacct?: string;
}

const directoriesOf = (groups: Homes) => Object.values(groups) as string[];

async function freezerSettled(group: string, state: "FROZEN" | "THAWED"): Promise<void> {
  for (let attempt = 0; attempt < FREEZE_ATTEMPTS; attempt += 1) {
    // The kernel gives up on a group that forks while it freezes, so the state is asked for again.
    await write(group, "freezer.state", state);
    if ((await read(group, "freezer.state")) === state) return;
    await sleep(FREEZE_WAIT_MS);
  }
  throw new Error(`the group did not become ${state} in time`);
}

const freezerState = (held: boolean) => (held ? "FROZEN" : "THAWED");

async function hold(groups: Homes, held: boolean): Promise<void> {
  if (groups.core !== undefined) await holdGroup(groups.core, held);
  else if (groups.freezer !== undefined) await write(groups.freezer, "freezer.state", freezerState(held));
}

async function settled(groups: Homes, held: boolean): Promise<void> {
  if (groups.core !== undefined) await groupSettled(groups.core, held);
  else if (groups.freezer !== undefined) await freezerSettled(groups.freezer, freezerState(held));
}

async function killAll(groups: Homes): Promise<void> {
  if (groups.core !== undefined) await killGroup(groups.core);
  else {
    await settled(groups, false);
    for (const pid of await pidsIn(groups.pids)) signal(pid, "SIGKILL");
  }
}

function cpuMs(groups: Homes): number {
  if (groups.core !== undefined) return cpuMsOf(groups.core);
  // Mounted together with `cpu` as a rule.
  const place = groups.cpuacct ?? groups.cpu;
  return place === undefined ? 0 : Number(readNow(place, "cpuacct.usage")) / 1e6;
}

const use = (groups: Homes): GroupUse =>
  groups.core === undefined ? { cpuMs: cpuMs(groups), waitedMs: null } : usageOf(groups.core);

/** `weight` as control groups v2 count. */
async function setWeight(groups: Homes, weight: number): Promise<void> {
  if (groups.cpu !== undefined) {
    await write(groups.cpu, "cpu.shares", Math.round((weight * GROUP_SHARES) / 100));
  }
}

function groupAt(groups: Homes): ReturnType<GroupKind["at"]> {
  return {
    join: directoriesOf(groups).map((directory) => join(directory, "cgroup.procs")),
    watched: false,
    prlimit: [],
    pids: () => pidsIn(groups.pids),
    use: () => use(groups),
    setWeight: (weight) => setWeight(groups, weight),
    hold: (held) => hold(groups, held),
    settled: (held) => settled(groups, held),
    killAll: () => killAll(groups),
    stats: async () => {
      const cached = await field(groups.memory, "memory.stat", "total_inactive_file");
      const used = Number(await read(groups.memory, "memory.usage_in_bytes"));
      const processes = (await pidsIn(groups.pids)).length;
      return { memoryBytes: Math.max(0, used - cached), cpuMs: cpuMs(groups), processes };
    },
    hits: async () => ({
      memory: await field(groups.memory, "memory.oom_control", "oom_kill"),
      processes: await field(groups.pids, "pids.events", "max"),
    }),
  };
}

async function setLimits(groups: Homes, limits: SandboxLimits): Promise<void> {
  const memory = async () => {
    // There only when the kernel accounts for swap; never below the limit without it.
    const withSwap = (bytes: number) =>
      write(groups.memory, "memory.memsw.limit_in_bytes", bytes).catch(() => undefined);
    await withSwap(NO_LIMIT);
    await write(groups.memory, "memory.limit_in_bytes", limits.memoryBytes);
    await withSwap(limits.memoryBytes);
  };
  await Promise.all([
    memory(),
    write(groups.pids, "pids.max", limits.processes + OWN_PROCESSES),
    setWeight(groups, FIRST_WEIGHT),
  ]);
  if (groups.cpu === undefined) return;
  await write(groups.cpu, "cpu.cfs_period_us", CPU_PERIOD_US);
  const quota = limits.cpus === undefined ? NO_LIMIT : Math.round(limits.cpus * CPU_PERIOD_US);
  await write(groups.cpu, "cpu.cfs_quota_us", quota);
}

const below = (homes: Homes, name: string) =>
  Object.fromEntries(Object.entries(homes).map(([key, path]) => [key, join(path, name)])) as unknown as Homes;

async function findRoots(): Promise<Homes> {
  const mounts = await cgroupMounts();
  const of = (name: string) => mounts.find(({ controllers }) => controllers.includes(name))?.path;
  const [memory, pids] = [of("memory"), of("pids")];
  if (memory === undefined || pids === undefined)
    throw new Error("no cgroup v1 for memory and pids is mounted");
  const roots: Homes = { memory, pids };
  const cpu = of("cpu");
  if (cpu !== undefined) roots.cpu = cpu;
  const core = mounts.find(({ version }) => version === 2)?.path;
  if (core !== undefined) return { ...roots, core };
  const [freezer, cpuacct] = [of("freezer"), of("cpuacct")];
  if (freezer === undefined) throw new Error("no cgroup freezer is mounted");
  roots.freezer = freezer;
  if (cpuacct !== undefined && cpuacct !== cpu) roots.cpuacct = cpuacct;
  return roots;
}

/** Limits by control groups v1, for whoever may write at their roots. Throws when that is not us. */
export async function openCgroup1(instance: string): Promise<LimitDriver> {
  const families = below(await findRoots(), FAMILY);
  const homes = below(families, instance);
  const remove = async (groups: Homes) => {
    await Promise.all(directoriesOf(groups).map(removeGroup));
  };
  return openStocked({
    async open() {
      await makeDirectories(...directoriesOf(families), ...directoriesOf(homes));
      // All sandboxes together weigh as much as one busy program per core, whatever their number.
      if (families.cpu !== undefined) {
        await write(families.cpu, "cpu.shares", GROUP_SHARES * availableParallelism());
      }
    },
    close: () => remove(homes),
    async make(name) {
      const groups = below(homes, name);
      try {
        await Promise.all(directoriesOf(groups).map((directory) => mkdir(directory)));
      } catch (error) {
        await remove(groups);
        throw error;
      }
    },
    remove: (name) => remove(below(homes, name)),
    limit: (name, limits) => setLimits(below(homes, name), limits),
    at: (name) => groupAt(below(homes, name)),
    cpuMs: () => cpuMs(homes),
  });
}
