import type { ChangeRow, Db } from "../schema.ts";
import { type ChangeFile, changeFiles } from "./changes.ts";
import { findClashes } from "./commit.ts";
import { type PresentVersion, placeFiles } from "./following.ts";
import { type Merge, mergePaths } from "./merging.ts";
import type { Placed } from "./placing.ts";
import { getProject } from "./project.ts";
import type { Conflict, Delta, FileVersion, NamedVersion } from "./types.ts";

const LABELS = { ours: "project", theirs: "change" };

/** Where a change was made from, and where it is to be merged. */
export interface MergePlace {
  readonly project_id: string;
  readonly base_revision: number;
  readonly head_revision: number;
}

export interface ChangeMerge extends Merge {
  /** Everything that was merged, by the path it goes to. */
  readonly placed: ReadonlyMap<string, Placed>;
  /** What the project has now at all these paths. */
  readonly present: ReadonlyMap<string, PresentVersion>;
}

/**
 * Merge a change's files with what the project has now. An edit follows a file that was moved meanwhile, by either
 * side, and a new file its directory. Changes nothing.
 */
export async function mergeFiles(
  db: Db,
  place: MergePlace,
  files: readonly ChangeFile[],
): Promise<ChangeMerge> {
  const { placed, present } = await placeFiles(db, place, files);
  const merge = await mergePaths(db, placed, LABELS);
  return { ...merge, placed: new Map(placed.map((file) => [file.path, file])), present };
}

/** Deltas for files that go from where the project has them, but for those a person has yet to decide on. */
export function relocations(
  { placed, deltas, merged, conflicts }: ChangeMerge,
  isResolved: (path: string) => boolean,
): Delta[] {
  const open = new Set(conflicts.flatMap(({ path }) => (isResolved(path) ? [] : [path])));
  const written = new Set([...deltas, ...merged].map(({ path }) => path));
  const moved: Delta[] = [];
  for (const { path, now, current } of placed.values()) {
    if (path === now || open.has(path)) continue;
    moved.push({ path: now, to: null });
    // Neither side's content is to be changed: it just goes along.
    if (!written.has(path) && !isResolved(path)) moved.push({ path, to: current });
  }
  return moved;
}

export interface Preview {
  readonly files: ChangeFile[];
  /** Empty unless the change waits for a decision. */
  readonly conflicts: (Conflict & { readonly current: NamedVersion | null })[];
  readonly current_revision: number;
}

/** A change as a reviewer sees it: its files, and where it collides with the project as it is now. */
export async function previewChange(db: Db, change: ChangeRow): Promise<Preview> {
  const { head_revision } = await getProject(db, change.project_id);
  const files = await changeFiles(db, change);
  if (change.state !== "proposed") return { files, conflicts: [], current_revision: head_revision };
  const merge = await mergeFiles(db, { ...change, head_revision }, files);
  const conflicts = [...merge.conflicts, ...(await clashesOf(db, change.project_id, merge))];
  return {
    files,
    conflicts: conflicts.map((conflict) => {
      const path = merge.placed.get(conflict.path)?.now ?? conflict.path;
      const now = merge.present.get(path);
      return { ...conflict, current: now === undefined ? null : { ...now, path } };
    }),
    current_revision: head_revision,
  };
}

/** Where a merge that is not written yet would put a file where a directory is. */
export function clashesOf(db: Db, projectId: string, merge: ChangeMerge): Promise<Conflict[]> {
  const written = [
    ...merge.deltas,
    ...merge.merged.map(({ path }) => ({ path, to: NOTHING })),
    ...relocations(merge, () => false),
  ];
  return findClashes(db, projectId, written, new Set(merge.present.keys()));
}

/** Stands for a merged text: what it is makes no difference to where it can be. */
const NOTHING: FileVersion = { blob_hash: Buffer.alloc(0), size: 0, executable: false };
