import { AppError } from "#schemas";
import type { ChangeRow, Db } from "../schema.ts";
import { storeFiles } from "./blobs.ts";
import { type ChangeMerge, mergeFiles, relocations } from "./change-merge.ts";
import { changeFiles, getChange } from "./changes.ts";
import { conflictError, effectOf } from "./commit.ts";
import { storeMerged } from "./edits.ts";
import { type Choice, type Division, divide } from "./hunks.ts";
import { normalizePath, showPath } from "./paths.ts";
import { getProject } from "./project.ts";
import type { Conflict, Delta, FileVersion, Project, Quota } from "./types.ts";

/** What a person decided to keep at a path; null deletes it. */
interface Resolution {
  readonly path: string;
  readonly content: Buffer | null;
}

export interface Acceptance {
  readonly change_id: string;
  /** The user who decides. */
  readonly decided_by: string;
  /** What of the change is accepted; without it everything. What is not stays proposed, as another change. */
  readonly hunks?: readonly Choice[] | undefined;
  readonly resolutions?: readonly Resolution[];
  /**
   * The revision the resolutions were made at: a file changed since is a conflict again instead of being
   * overwritten. Without it the resolutions win over whatever the project has.
   */
  readonly current_revision?: number | undefined;
  /** Accept only while this is the project's newest revision: the one the merged tree was tried on. */
  readonly expected_head?: number | undefined;
  readonly quota: Quota;
}

/** What can be prepared of an acceptance before the project is held. */
export interface Prepared extends Division {
  readonly project_id: string;
  readonly resolved: ReadonlyMap<string, Omit<FileVersion, "executable"> | null>;
}

/** Look up what is to be accepted and store what it brings. @throws AppError NotFound, InvalidParams, QuotaExceeded. */
export async function prepareAcceptance(db: Db, acceptance: Acceptance): Promise<Prepared> {
  const change = await getChange(db, acceptance.change_id);
  const resolved = await storeResolutions(db, acceptance.resolutions ?? [], acceptance.quota);
  const files = await changeFiles(db, change);
  const isWhole = acceptance.hunks === undefined || change.state !== "proposed";
  const division = isWhole ? { taken: files, left: [] } : await divide(db, files, acceptance.hunks ?? []);
  return { ...division, project_id: change.project_id, resolved };
}

/**
 * What accepting makes of the project as it is now; merged contents are stored.
 * @throws AppError Conflict with `details.conflicts` where a path needs a resolution, InvalidParams for a resolution
 * of another path, QuotaExceeded for a merge that is too large.
 */
export async function planAcceptance(
  db: Db,
  {
    project,
    change,
    acceptance,
    prepared,
  }: {
    readonly project: Project;
    readonly change: ChangeRow;
    readonly acceptance: Acceptance;
    readonly prepared: Prepared;
  },
): Promise<Delta[]> {
  const { resolved, taken } = prepared;
  const { head_revision } = project;
  const merge = await mergeFiles(db, { ...change, head_revision }, taken);
  const foreign = foreignPath(merge, prepared);
  if (foreign !== undefined) throw notInChange(foreign);
  const isOpen = ({ path }: { readonly path: string }) => !resolved.has(path);
  const open: Conflict[] = merge.conflicts.filter(isOpen);
  for (const path of resolved.keys()) {
    const changedAt = merge.present.get(merge.placed.get(path)?.now ?? path)?.revision ?? 0;
    if (changedAt > (acceptance.current_revision ?? changedAt)) open.push({ path, kind: "content" });
  }
  if (open.length > 0) throw conflictError(open, head_revision);
  const moved = relocations(merge, (path) => resolved.has(path));
  const stored = await storeMerged(db, merge.merged.filter(isOpen), acceptance.quota);
  const deltas = [...moved, ...merge.deltas.filter(isOpen), ...stored];
  for (const [path, content] of resolved) {
    const side = merge.placed.get(path);
    const { executable } = side?.proposed ?? side?.current ?? { executable: false };
    deltas.push({ path, to: content && { ...content, executable } });
  }
  // A path may be both left by a file that moves and written anew: the later one counts.
  return [...new Map(deltas.map((delta) => [delta.path, delta])).values()];
}

/** A path there is a resolution for, but no reason for one. */
function foreignPath({ placed }: ChangeMerge, { taken, resolved }: Prepared): string | undefined {
  const known = new Set(taken.map(({ path }) => path));
  for (const { path, now } of placed.values()) known.add(path).add(now);
  return [...resolved.keys()].find((path) => !known.has(path));
}

export interface AcceptancePreview {
  readonly project: Project;
  readonly head_revision: number;
  /** Whether anything else came since the revision the change was made from. */
  readonly moved: boolean;
  /** What the next revision would make of its paths; empty where nothing would differ. */
  readonly files: Delta[];
}

/**
 * What accepting a change would commit now. Nothing is written but contents.
 * @throws AppError as `acceptChange`, but for quotas of whole projects.
 */
export async function previewAcceptance(db: Db, acceptance: Acceptance): Promise<AcceptancePreview> {
  const prepared = await prepareAcceptance(db, acceptance);
  const project = await getProject(db, prepared.project_id);
  const { head_revision } = project;
  const change = await getChange(db, acceptance.change_id);
  if (change.state === "rejected") throw alreadyDecided(change);
  if (change.state === "accepted") return { project, head_revision, moved: false, files: [] };
  const deltas = await planAcceptance(db, { project, change, acceptance, prepared });
  const { changed } = await effectOf(db, project.id, deltas);
  return { project, head_revision, moved: head_revision !== change.base_revision, files: changed };
}

/** The refusal of a second, different decision. */
export function alreadyDecided(change: ChangeRow): AppError {
  const hint =
    change.state === "accepted"
      ? "change.revert undoes it, project.rollback brings back an older revision."
      : "Let the agent propose it again.";
  return new AppError("Conflict", `The change was ${change.state} already.`, { state: change.state, hint });
}

function notInChange(path: string): AppError {
  const message = `There is a resolution for ${showPath(path)}, which the change does not touch.`;
  return new AppError("InvalidParams", message, { issues: [{ path: "resolutions", message }] });
}

async function storeResolutions(
  db: Db,
  resolutions: readonly Resolution[],
  quota: Quota,
): Promise<Prepared["resolved"]> {
  const resolved = new Map<string, Omit<FileVersion, "executable"> | null>();
  const written: { path: string; content: Buffer }[] = [];
  for (const { path, content } of resolutions) {
    const normal = normalizePath(path);
    if (resolved.has(normal)) {
      throw new AppError("InvalidParams", `There are two resolutions for ${showPath(normal)}.`);
    }
    resolved.set(normal, null);
    if (content !== null) written.push({ path: normal, content });
  }
  for (const { path, ...stored } of await storeFiles(db, written, quota)) resolved.set(path, stored);
  return resolved;
}
