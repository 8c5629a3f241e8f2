import { readFileSync } from "node:fs";
import { mkdir, readdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { instanceState } from "../instance.ts";
import { signal } from "../process-tree.ts";

/** Directory below a cgroup mount that holds all of ours, one per server process in it. */
export const FAMILY = "cyberdevstudio";
const REMOVE_ATTEMPTS = 200;
const REMOVE_WAIT_MS = 10;
const END_ROUNDS = 200;

export interface CgroupMount {
  path: string;
  version: 1 | 2;
  /** Controllers of a v1 mount. */
  controllers: string[];
}

export async function cgroupMounts(): Promise<CgroupMount[]> {
  const lines = (await readFile("/proc/self/mounts", "utf8")).split("\n").map((line) => line.split(" "));
  return lines.flatMap(([, path = "", type, options = ""]): CgroupMount[] => {
    if (type === "cgroup2") return [{ path, version: 2, controllers: [] }];
    if (type === "cgroup") return [{ path, version: 1, controllers: options.split(",") }];
    return [];
  });
}

export async function read(directory: string, file: string): Promise<string> {
  return (await readFile(join(directory, file), "utf8")).trim();
}

export async function write(directory: string, file: string, value: string | number): Promise<void> {
  await writeFile(join(directory, file), String(value));
}

/** The same at once. */
export function readNow(directory: string, file: string): string {
  return readFileSync(join(directory, file), "latin1").trim();
}

/** A number from `key value` lines; 0 where the line is missing. */
export function fieldOf(text: string, key: string): number {
  const line = text.split("\n").find((each) => each.startsWith(`${key} `));
  return Number(line?.slice(key.length + 1) ?? 0);
}

export async function field(directory: string, file: string, key: string): Promise<number> {
  return fieldOf(await read(directory, file), key);
}

export async function pidsIn(directory: string): Promise<number[]> {
  const text = await read(directory, "cgroup.procs");
  return text === "" ? [] : text.split("\n").map(Number);
}

export async function makeDirectories(...paths: string[]): Promise<void> {
  for (const path of paths) await mkdir(path, { recursive: true });
}

/** Remove a group whose processes are gone or going: the kernel says busy until the last is collected. */
export async function removeGroup(directory: string): Promise<void> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      await rmdir(directory);
      return;
    } catch (error) {
      const code = error instanceof Error && "code" in error ? error.code : undefined;
      if (code === "ENOENT") return;
      if (code !== "EBUSY" || attempt >= REMOVE_ATTEMPTS) throw error;
      await sleep(REMOVE_WAIT_MS);
    }
  }
}

async function subdirectories(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
  return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
}

/** Names of servers that are no more and still have groups below `family`. */
export async function staleInstances(family: string): Promise<string[]> {
  return (await subdirectories(family)).filter((name) => instanceState(name) === "dead");
}

/** SIGKILL to all that is in a group, which may be frozen, and to what it forks meanwhile. */
async function endGroup(group: string): Promise<void> {
  // Whichever of these files the hierarchy has. What a v1 freezer holds cannot die before it thaws.
  await write(group, "pids.max", 0).catch(() => undefined);
  await write(group, "freezer.state", "THAWED").catch(() => undefined);
  await write(group, "cgroup.kill", 1).catch(() => undefined);
  for (const pid of await pidsIn(group).catch(() => [])) signal(pid, "SIGKILL");
}

/**
 * End and remove the groups that `instance` left in these families; another server may be doing the same. Answers how
 * many sandboxes' groups there were, each counted once per family.
 */
export async function removeInstanceGroups(families: readonly string[], instance: string): Promise<number> {
  const homes = families.map((family) => join(family, instance));
  const groups = await Promise.all(
    homes.map(async (home) => (await subdirectories(home)).map((name) => join(home, name))),
  );
  const all = groups.flat();
  for (let round = 0; round < END_ROUNDS; round += 1) {
    await Promise.all(all.map(endGroup));
    const left = await Promise.all(all.map((group) => pidsIn(group).catch(() => [])));
    if (left.every((pids) => pids.length === 0)) break;
    await sleep(REMOVE_WAIT_MS);
  }
  await Promise.all(all.map(removeGroup));
  await Promise.all(homes.map(removeGroup));
  return all.length;
}

/** Every place on this machine where servers make their groups, whatever way of limiting they use. */
export async function allFamilies(): Promise<string[]> {
  const own = await readFile("/proc/self/cgroup", "utf8").catch(() => "");
  const mounts = await cgroupMounts();
  const bases = mounts.flatMap(({ path, version }) => (version === 2 ? [path, ownPath(path, own)] : [path]));
  return [...new Set(bases)].map((base) => join(base, FAMILY));
}

/** Where /proc/<pid>/cgroup says a process is, below the v2 mount. */
export function ownPath(mount: string, cgroup: string): string {
  return join(mount, /^0::(.*)$/m.exec(cgroup)?.[1] ?? "/");
}
