import { statSync } from "node:fs";
import { dirname, resolve } from "node:path";

/** A user and group a process may run as, besides our own. */
export interface Identity {
  readonly uid: number;
  readonly gid: number;
}

const EXECUTE = 1;

/**
 * The first directory on the way to `path` (itself included, when it is one) which that user may not enter,
 * judged by owner and mode; undefined when the way is free. What does not exist yet does not stand in the way.
 */
export function firstClosed(path: string, who: Identity): string | undefined {
  const target = resolve(path);
  const way = [target];
  for (let at = target; at !== dirname(at); at = dirname(at)) way.unshift(dirname(at));
  return way.find((directory) => {
    const stat = statSync(directory, { throwIfNoEntry: false });
    if (stat === undefined || !stat.isDirectory() || who.uid === 0) return false;
    const shift = stat.uid === who.uid ? 6 : stat.gid === who.gid ? 3 : 0;
    return ((stat.mode >> shift) & EXECUTE) === 0;
  });
}

/** Whether that user may reach `path`: everything they start needs the way to it open. */
export function enterable(path: string, who: Identity): boolean {
  return firstClosed(path, who) === undefined;
}
