import type { Db } from "../schema.ts";
import { storeFiles } from "./blobs.ts";
import { changeFiles, getChange } from "./changes.ts";
import { versionsAt } from "./commit.ts";
import { mergePaths } from "./merging.ts";
import type { Conflict, Delta, FileVersion, Quota } from "./types.ts";

const LABELS = { ours: "before", theirs: "change" };

/** What lies over a project's files for somebody who goes on from changes that are not its revision yet. */
export interface Overlay {
  readonly files: readonly Delta[];
  /** Where the changes collide with the project or each other. A text then stands between markers in `files`. */
  readonly conflicts: readonly Conflict[];
}

/**
 * Put changes over a project at its present revision, one after the other, each merged three-way with what is there.
 * Nothing is committed; merged contents are stored.
 * @throws AppError NotFound for a change that is gone, QuotaExceeded for a merge that is too large.
 */
export async function overlayChanges(
  db: Db,
  place: { readonly project_id: string; readonly revision: number; readonly quota: Quota },
  changes: readonly string[],
): Promise<Overlay> {
  const laid = new Map<string, FileVersion | null>();
  const conflicts: Conflict[] = [];
  for (const id of changes) {
    const files = await changeFiles(db, await getChange(db, id));
    const paths = files.map(({ path }) => path).filter((path) => !laid.has(path));
    const present = await versionsAt(db, place.project_id, paths, place.revision);
    const sides = files.map(({ path, before, after }) => ({
      path,
      base: before,
      current: laid.get(path) ?? (laid.has(path) ? null : (present.get(path) ?? null)),
      proposed: after,
    }));
    const merge = await mergePaths(db, sides, LABELS);
    conflicts.push(...merge.conflicts);
    for (const { path, to } of merge.deltas) laid.set(path, to);
    const marked = merge.conflicts.flatMap(({ path, merged }) =>
      merged === undefined ? [] : [{ path, content: Buffer.from(merged), executable: false }],
    );
    for (const { path, ...to } of await storeFiles(db, [...merge.merged, ...marked], place.quota)) {
      laid.set(path, to);
    }
  }
  return { files: [...laid].map(([path, to]) => ({ path, to })), conflicts };
}
