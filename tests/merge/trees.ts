import type { Edit } from "#database/projects/types.ts";

/** A file of a tree: its bytes, and whether it can be started. */
export interface File {
  readonly content: Buffer;
  readonly executable: boolean;
}
/** Files by path. */
export type Tree = ReadonlyMap<string, File>;

/** What a side makes of a path: text, bytes, bytes with the bit, or null where it deletes it. */
type Made = string | Buffer | File | null;
export type Edits = Readonly<Record<string, Made>>;

/** Two changes of one base. */
export interface Pair {
  readonly name: string;
  readonly base: Edits;
  readonly ours: Edits;
  readonly theirs: Edits;
  /** Why the result is not git's, where it is not on purpose. */
  readonly differs?: string;
}

/** A tree with edits made to it. */
export function edited(tree: Tree, edits: Edits): Tree {
  const next = new Map(tree);
  for (const [path, made] of Object.entries(edits)) {
    if (made === null) next.delete(path);
    else next.set(path, fileOf(made, tree.get(path)));
  }
  return next;
}

function fileOf(made: string | Buffer | File, before: File | undefined): File {
  if (typeof made === "string" || Buffer.isBuffer(made)) {
    return { content: Buffer.from(made), executable: before?.executable ?? false };
  }
  return made;
}

/** The same content, to be started. */
export function executable(content: string): File {
  return { content: Buffer.from(content), executable: true };
}

/** What makes one tree of another, as the project store takes it. */
export function editsBetween(from: Tree, to: Tree): Edit[] {
  const edits: Edit[] = [];
  for (const path of from.keys()) if (!to.has(path)) edits.push({ path, content: null });
  for (const [path, file] of to) {
    const before = from.get(path);
    if (before === undefined || !isSame(before, file)) edits.push({ path, ...file });
  }
  return edits;
}

function isSame(one: File, other: File): boolean {
  return one.executable === other.executable && one.content.equals(other.content);
}

/** A tree as something a test can compare and a person can read. */
export function shown(tree: Tree): Record<string, string> {
  const paths = [...tree.keys()].sort();
  return Object.fromEntries(
    paths.map((path) => {
      const file = tree.get(path);
      return [path, `${file?.executable ? "x " : "- "}${file?.content.toString("latin1")}`];
    }),
  );
}

/** How often each line stands in a tree; how a line ends makes no difference. */
function linesOf(tree: Tree): Map<string, number> {
  const lines = new Map<string, number>();
  for (const { content } of tree.values()) {
    for (const line of content.toString("latin1").split(/\r?\n/)) lines.set(line, (lines.get(line) ?? 0) + 1);
  }
  lines.delete("");
  return lines;
}

/**
 * Lines a merge may not be without but is: every line a side added, and every line that neither deleted, as often as it
 * must be there at least.
 */
export function lostLines(base: Tree, ours: Tree, theirs: Tree, result: Tree): string[] {
  const [o, a, b, r] = [base, ours, theirs, result].map(linesOf);
  if (o === undefined || a === undefined || b === undefined || r === undefined) throw new Error("no lines");
  const lost: string[] = [];
  for (const line of new Set([...o.keys(), ...a.keys(), ...b.keys()])) {
    const was = o.get(line) ?? 0;
    const [left, right] = [(a.get(line) ?? 0) - was, (b.get(line) ?? 0) - was];
    const atLeast = was + Math.max(left, right, 0) + Math.min(left, 0) + Math.min(right, 0);
    if ((r.get(line) ?? 0) < atLeast) lost.push(line);
  }
  return lost;
}
