import { readFileSync } from "node:fs";
import { statfs } from "node:fs/promises";
import { join } from "node:path";

export interface Memory {
  readonly totalBytes: number;
  readonly availableBytes: number;
}

/** Memory of the machine, or of the control group we are in where that is tighter. */
export function readMemory(): Memory {
  const info = read("/proc/meminfo") ?? "";
  const kilobytes = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(info)?.[1] ?? 0);
  const machine = {
    totalBytes: kilobytes("MemTotal") * 1024,
    availableBytes: kilobytes("MemAvailable") * 1024,
  };
  return [machine, ...groupMemory()].reduce((least, next) =>
    next.availableBytes < least.availableBytes ? next : least,
  );
}

/** Every limit on our way up the control groups; file cache counts as free, the kernel drops it. */
function groupMemory(): Memory[] {
  const found: Memory[] = [];
  for (const line of (read("/proc/self/cgroup") ?? "").split("\n")) {
    const [, controllers, path] = line.split(":");
    if (path === undefined) continue;
    const v2 = controllers === "";
    if (!v2 && !controllers?.split(",").includes("memory")) continue;
    const root = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    const names = v2
      ? { limit: "memory.max", usage: "memory.current", cache: /^inactive_file (\d+)/m }
      : {
          limit: "memory.limit_in_bytes",
          usage: "memory.usage_in_bytes",
          cache: /^total_inactive_file (\d+)/m,
        };
    const parts = path.split("/").filter((part) => part !== "");
    for (let depth = parts.length; depth >= 0; depth -= 1) {
      const group = join(root, ...parts.slice(0, depth));
      const limit = Number(read(join(group, names.limit)));
      // "max" and v1's huge number both mean: no limit.
      if (!Number.isFinite(limit) || limit <= 0 || limit > 2 ** 52) continue;
      const cache = Number(names.cache.exec(read(join(group, "memory.stat")) ?? "")?.[1] ?? 0);
      const used = Number(read(join(group, names.usage)) ?? 0) - cache;
      found.push({ totalBytes: limit, availableBytes: Math.max(0, limit - used) });
    }
  }
  return found;
}

export interface Disk {
  /** Share of it that is used, 0..1, as `df` reckons it for unprivileged users. */
  readonly share: number;
  readonly usedBytes: number;
  readonly usedFiles: number;
}

/** The disk that holds `path`. */
export async function readDisk(path: string): Promise<Disk> {
  const { blocks, bfree, bavail, bsize, files, ffree } = await statfs(path);
  const used = blocks - bfree;
  return {
    share: used + bavail === 0 ? 1 : used / (used + bavail),
    usedBytes: used * bsize,
    usedFiles: files - ffree,
  };
}

/** Share of the disk at `path` that is used, 0..1, as `df` reckons it for unprivileged users. */
export async function diskUse(path: string): Promise<number> {
  return (await readDisk(path)).share;
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
