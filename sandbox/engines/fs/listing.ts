import type { Dirent, Stats } from "node:fs";
import { lstat, opendir } from "node:fs/promises";
import { AppError } from "#schemas";
import { at, ignoring, self } from "./descriptors.ts";
import { irregularity } from "./walk.ts";

export interface JailEntry {
  name: string;
  kind: "file" | "directory" | "other";
  size: number;
  executable: boolean;
}

/** What stands at a path; `other`: a link, hard link, FIFO, socket or device, of which nothing more is told. */
export interface JailStat {
  kind: JailEntry["kind"];
  /** Bytes; 0 for all but files. */
  size: number;
  executable: boolean;
  mtimeMs: number;
  ctimeMs: number;
}

export function toStat(stat: Stats): JailStat {
  const kind = irregularity(stat) !== undefined ? "other" : stat.isDirectory() ? "directory" : "file";
  return {
    kind,
    size: kind === "file" ? stat.size : 0,
    executable: kind === "file" && (stat.mode & 0o100) !== 0,
    mtimeMs: stat.mtimeMs,
    ctimeMs: stat.ctimeMs,
  };
}

/**
 * What an open directory holds, sorted by name; names that are not Unicode are left out.
 * @throws AppError PayloadTooLarge when there are more than `maxEntries`.
 */
export async function listDirectory(
  directory: number,
  maxEntries: number,
  path: string,
): Promise<JailEntry[]> {
  const entries: JailEntry[] = [];
  const listing = await opendir(self(directory), { encoding: "buffer" as BufferEncoding });
  for await (const entry of listing) {
    const raw = (entry as unknown as Dirent<Buffer>).name;
    const name = raw.toString("utf8");
    if (entries.length >= maxEntries) {
      throw new AppError("PayloadTooLarge", `${path} has more than ${maxEntries} entries.`, {
        hint: "Sort what is in it into directories.",
      });
    }
    // Shown as text it could be another file's name.
    if (!Buffer.from(name).equals(raw)) continue;
    const stat = await lstat(at(directory, name)).catch(ignoring("ENOENT"));
    if (stat === undefined) continue;
    const { kind, size, executable } = toStat(stat);
    entries.push({ name, kind, size, executable });
  }
  return entries.sort((one, other) => (one.name < other.name ? -1 : 1));
}
