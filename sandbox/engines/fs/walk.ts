import type { Dirent, Stats } from "node:fs";
import { lstat, opendir } from "node:fs/promises";
import { at, closeNow, errorCode, openDirectory, self } from "./descriptors.ts";

export interface WalkOptions {
  /** Files and directories together. */
  maxEntries: number;
  maxDepth: number;
  /** Answers true for what is not of interest; a directory's inside is then not looked at. */
  ignore?: (path: string, kind: "file" | "directory") => boolean;
}

export interface WalkEntry {
  path: string;
  kind: "file" | "directory";
  size: number;
  executable: boolean;
  mtimeMs: number;
  /** Time of the last change of anything about it; unlike mtime nobody can set it. */
  ctimeMs: number;
}

/** Why something is not among the entries. */
export type SkipReason =
  | "symlink"
  | "fifo"
  | "socket"
  | "device"
  | "hardlink"
  | "name"
  | "depth"
  | "unreadable";

export interface WalkResult {
  /** Sorted by path. */
  entries: WalkEntry[];
  skipped: { path: string; reason: SkipReason }[];
  /** Whether there was more than `maxEntries` or than a bounded list of skipped things. */
  truncated: boolean;
}

const MAX_SKIPPED = 1000;

export function irregularity(stat: Stats): SkipReason | undefined {
  if (stat.isDirectory()) return undefined;
  if (stat.isFile()) return stat.nlink > 1 ? "hardlink" : undefined;
  if (stat.isSymbolicLink()) return "symlink";
  if (stat.isFIFO()) return "fifo";
  return stat.isSocket() ? "socket" : "device";
}

class Walk {
  readonly #options: WalkOptions;
  readonly result: WalkResult = { entries: [], skipped: [], truncated: false };

  constructor(options: WalkOptions) {
    this.#options = options;
  }

  #skip(path: string, reason: SkipReason): void {
    if (this.result.skipped.length < MAX_SKIPPED) this.result.skipped.push({ path, reason });
    else this.result.truncated = true;
  }

  async #visit(directory: number, name: string, path: string, depth: number): Promise<void> {
    const stat = await lstat(at(directory, name));
    const reason = irregularity(stat);
    const kind = stat.isDirectory() ? "directory" : "file";
    if (reason !== undefined) {
      this.#skip(path, reason);
      return;
    }
    if (this.#options.ignore?.(path, kind) === true) return;
    const { size, mtimeMs, ctimeMs } = stat;
    const executable = kind === "file" && (stat.mode & 0o100) !== 0;
    this.result.entries.push({ path, kind, size: kind === "file" ? size : 0, executable, mtimeMs, ctimeMs });
    if (kind === "file") return;
    if (depth >= this.#options.maxDepth) {
      this.#skip(path, "depth");
      return;
    }
    const inside = openDirectory(directory, name);
    try {
      await this.descend(inside, `${path}/`, depth + 1);
    } finally {
      closeNow(inside);
    }
  }

  async descend(directory: number, prefix: string, depth: number): Promise<void> {
    const listing = await opendir(self(directory), { encoding: "buffer" as BufferEncoding });
    for await (const entry of listing) {
      if (this.result.entries.length >= this.#options.maxEntries) {
        this.result.truncated = true;
        return;
      }
      const raw = (entry as unknown as Dirent<Buffer>).name;
      const name = raw.toString("utf8");
      const path = prefix + name;
      if (!Buffer.from(name).equals(raw)) {
        this.#skip(path, "name");
        continue;
      }
      await this.#visit(directory, name, path, depth).catch((error: unknown) => {
        const code = errorCode(error);
        // Gone while we looked, or turned into a link: the next walk will see.
        if (code === "ENOENT") return;
        if (code === "ELOOP" || code === "ENOTDIR") this.#skip(path, "symlink");
        else if (code === "EACCES") this.#skip(path, "unreadable");
        else throw error;
      });
    }
  }
}

/** Everything below an open directory, within bounds, following nothing. */
export async function walkDirectory(directory: number, options: WalkOptions): Promise<WalkResult> {
  const walk = new Walk(options);
  await walk.descend(directory, "", 1);
  walk.result.entries.sort((one, other) => (one.path < other.path ? -1 : 1));
  return walk.result;
}
