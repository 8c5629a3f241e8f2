import { directoriesAbove } from "./paths.ts";

/**
 * Directories that went to another place with their files: old -> new. As in git, the place most of its files went to;
 * none where two places have equally many. Whether the old directory is really gone is the caller's to ask.
 */
export function findDirectoryRenames(renames: ReadonlyMap<string, string>): Map<string, string> {
  const votes = new Map<string, Map<string, number>>();
  for (const [from, to] of renames) {
    for (const [old, next] of directoriesMoved(from, to)) {
      const places = votes.get(old) ?? new Map<string, number>();
      places.set(next, (places.get(next) ?? 0) + 1);
      votes.set(old, places);
    }
  }
  const moved = new Map<string, string>();
  for (const [old, places] of votes) {
    const [first, second] = [...places].sort(([, one], [, other]) => other - one);
    if (first !== undefined && first[1] > (second?.[1] ?? 0)) moved.set(old, first[0]);
  }
  return moved;
}

/** What a file's move says about the directories above it: `a/b/f` -> `c/b/f` moves `a/b` to `c/b`, and `a` to `c`. */
function directoriesMoved(from: string, to: string): [string, string][] {
  const [old, next] = [from.split("/").slice(0, -1), to.split("/").slice(0, -1)];
  const moved: [string, string][] = [];
  while (old.length > 0 && old.join("/") !== next.join("/")) {
    moved.push([old.join("/"), next.join("/")]);
    if (old.pop() !== next.pop()) break;
  }
  return moved;
}

/** The nearest directory above a path that moved, and where the path would be with it. */
export function movedWith(
  path: string,
  directories: ReadonlyMap<string, string>,
): { directory: string; to: string } | undefined {
  const directory = directoriesAbove(path)
    .reverse()
    .find((above) => directories.has(above));
  if (directory === undefined) return undefined;
  const below = path.slice(directory.length + 1);
  const next = directories.get(directory);
  return { directory, to: next === undefined || next === "" ? below : `${next}/${below}` };
}
