import { movedWith } from "./directory-renames.ts";
import type { PathChange } from "./renames.ts";
import { type Sides, sameVersion } from "./three-way.ts";
import type { ConflictKind, FileVersion } from "./types.ts";

/** Where a file of a change goes, and what it is merged with there. */
export interface Placed extends Sides {
  /** Where the project has the file; where that is another path, it goes from there. */
  readonly now: string;
  /** Where the file was in the end of both, for one that somebody moved. */
  readonly moved_from?: string;
  /** A conflict whatever the contents are. */
  readonly forced?: Extract<ConflictKind, "move_move" | "move_delete" | "delete_move">;
}

/** Old path -> new path, for files and for whole directories. */
export interface Moves {
  readonly files: ReadonlyMap<string, string>;
  /** Only those of which the side has nothing left at the old place. */
  readonly directories: ReadonlyMap<string, string>;
}

/** What both sides did since the change's base. */
export interface BothSides {
  readonly ours: readonly PathChange[];
  readonly theirs: readonly PathChange[];
  readonly oursMoves: Moves;
  readonly theirsMoves: Moves;
  /** What the project has at a path now. */
  readonly present: (path: string) => FileVersion | null;
}

/** A change's files each at its own path, as where nobody moved anything. */
export function placeStraight(theirs: readonly PathChange[], present: BothSides["present"]): Placed[] {
  return theirs.map(({ path, before, after }) => ({
    path,
    now: path,
    base: before,
    current: present(path),
    proposed: after,
  }));
}

/**
 * Let edits follow files and new files follow directories that the other side moved, as git does. What cannot follow,
 * because something stands there, stays where it is: then the paths themselves are in conflict.
 */
export function placeMoved(sides: BothSides): Placed[] {
  const placing = new Placing(sides);
  for (const [from, to] of sides.theirsMoves.files) placing.theirMove(from, to);
  for (const [from, to] of sides.oursMoves.files) placing.ourMove(from, to);
  for (const change of sides.theirs) placing.rest(change);
  for (const change of sides.ours) placing.ourAddition(change);
  return [...placing.placed.values()];
}

class Placing {
  readonly placed = new Map<string, Placed>();
  readonly #sides: BothSides;
  readonly #theirs: ReadonlyMap<string, PathChange>;
  readonly #done = new Set<string>();
  /** Paths of the project that are placed elsewhere already. */
  readonly #taken = new Set<string>();

  constructor(sides: BothSides) {
    this.#sides = sides;
    this.#theirs = new Map(sides.theirs.map((change) => [change.path, change]));
  }

  /** The change moved a file. */
  theirMove(from: string, to: string): void {
    const base = this.#theirs.get(from)?.before ?? null;
    const proposed = this.#theirs.get(to)?.after ?? null;
    const current = this.#sides.present(from);
    const file = { base, proposed, moved_from: from };
    const other = this.#sides.oursMoves.files.get(from);
    if (other === to) {
      this.#place({ ...file, path: to, current: this.#sides.present(to), now: to }, from, to);
      return;
    }
    // What the project has at the new place is another file: then the place is in conflict, not the move.
    if (this.#sides.present(to) !== null) return;
    if (other !== undefined) {
      const moved = { ...file, path: to, current: this.#sides.present(other), now: other };
      this.#place({ ...moved, forced: "move_move" }, from, to);
    } else if (current === null) {
      this.#place({ ...file, path: to, current, now: to, forced: "delete_move" }, from, to);
    } else if (!sameVersion(base, current)) {
      const { directories } = this.#sides.oursMoves;
      this.#place({ ...file, path: this.#follow(to, directories), current, now: from }, from, to);
    }
  }

  /** The project moved a file. */
  ourMove(from: string, to: string): void {
    const change = this.#theirs.get(from);
    const isMovedByBoth = this.#sides.theirsMoves.files.has(from);
    if (change === undefined || isMovedByBoth || this.#theirs.has(to)) return;
    const file = { base: change.before, current: this.#sides.present(to), moved_from: from, now: to };
    if (change.after === null) {
      this.#place({ ...file, path: to, proposed: null, forced: "move_delete" }, from);
    } else {
      const path = this.#follow(to, this.#sides.theirsMoves.directories);
      this.#place({ ...file, path, proposed: change.after }, from);
    }
  }

  /** What of the change nothing else has placed. */
  rest({ path, before, after }: PathChange): void {
    if (this.#done.has(path)) return;
    const current = this.#sides.present(path);
    const isNew = before === null && after !== null && current === null;
    const to = isNew ? this.#follow(path, this.#sides.oursMoves.directories) : path;
    this.#place({ path: to, now: to, base: before, current, proposed: after }, path);
  }

  /** What the project put into a directory that the change moved goes with it. */
  ourAddition({ path, before, after }: PathChange): void {
    if (before !== null || after === null || this.#theirs.has(path) || this.#taken.has(path)) return;
    const to = this.#follow(path, this.#sides.theirsMoves.directories);
    if (to !== path) this.#place({ path: to, now: path, base: null, current: after, proposed: null });
  }

  /** Where a path is once its directory has moved; where it is, when something stands at the other place. */
  #follow(path: string, directories: Moves["directories"]): string {
    const to = movedWith(path, directories)?.to ?? path;
    const isFree = this.#sides.present(to) === null && !this.#theirs.has(to) && !this.placed.has(to);
    return isFree ? to : path;
  }

  #place(placed: Placed, ...done: readonly string[]): void {
    this.placed.set(placed.path, placed);
    this.#taken.add(placed.now);
    for (const path of done) this.#done.add(path);
  }
}
