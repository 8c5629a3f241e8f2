import { mkdir, readdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { instanceState } from "../instance.ts";
import { signal } from "../process-tree.ts";

/** Directory below a cgroup mount that holds all of ours, one per server process in it. */
export const FAMILY = "cyberdevstudio";
const REMOVE_ATTEMPTS = 200;
const REMOVE_WAIT_MS = 10;

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

/** A number from a file of `key value` lines; 0 where the line is missing. */
export async function field(directory: string, file: string, key: string): Promise<number> {
  const line = (await read(directory, file)).split("\n").find((text) => text.startsWith(`${key} `));
  return Number(line?.slice(key.length + 1) ?? 0);
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

/**
 * Below `family`, end and remove the groups of servers that are no more. Frozen processes of a v1 freezer
 * cannot die before they thaw. Answers how many sandboxes' groups there were.
 */
export async function removeStale(family: string): Promise<number> {
  let removed = 0;
  for (const instance of await subdirectories(family)) {
    if (instanceState(instance) !== "dead") continue;
    const directory = join(family, instance);
    for (const name of await subdirectories(directory)) {
      const group = join(directory, name);
      await write(group, "freezer.state", "THAWED").catch(() => undefined);
      for (const pid of await pidsIn(group)) signal(pid, "SIGKILL");
      await removeGroup(group);
      removed += 1;
    }
    await removeGroup(directory);
  }
  return removed;
}
