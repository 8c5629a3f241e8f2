import { directoriesAbove } from "./paths.ts";
import { sameVersion } from "./three-way.ts";
import type { Delta, NamedVersion } from "./types.ts";

/** What makes `from` equal to `to`: one delta per path that differs, in the order of the paths. */
export function diffTrees(from: readonly NamedVersion[], to: readonly NamedVersion[]): Delta[] {
  const before = new Map(from.map((file) => [file.path, file]));
  const deltas: Delta[] = [];
  for (const { path, blob_hash, size, executable } of to) {
    const version = { blob_hash, size, executable };
    if (!sameVersion(before.get(path) ?? null, version)) deltas.push({ path, to: version });
    before.delete(path);
  }
  for (const path of before.keys()) deltas.push({ path, to: null });
  return deltas.sort((left, right) => (left.path < right.path ? -1 : 1));
}

/** Paths among these that another of them would need as a directory. */
export function clashesAmong(paths: readonly string[]): string[] {
  const needed = new Set(paths.flatMap(directoriesAbove));
  return paths.filter((path) => needed.has(path));
}
