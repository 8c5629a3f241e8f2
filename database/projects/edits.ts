import { AppError } from "#schemas";
import type { Database } from "../open.ts";
import type { Db } from "../schema.ts";
import { storeFiles } from "./blobs.ts";
import { type Commit, conflictError, currentVersions, versionsAt, writeRevision } from "./commit.ts";
import { type MergedText, mergePaths } from "./merging.ts";
import { normalizePath, showPath } from "./paths.ts";
import { lockProject } from "./project.ts";
import type { Delta, Edit, FileVersion, NamedVersion, Project, Quota } from "./types.ts";

const LABELS = { ours: "project", theirs: "yours" };

export interface EditCommit extends Commit {
  readonly project_id: string;
  /** The revision the edits were made against; without it they simply replace what is there. */
  readonly base_revision?: number | undefined;
  readonly edits: readonly Edit[];
}

/**
 * Commit edits as one revision, merging file by file with what came after their base.
 * @returns the new revision, or the present one when the edits change nothing; `merged`: whether somebody
 * else's edits of the same file were merged with these.
 * @throws AppError Conflict with `details.conflicts` (then nothing was changed), QuotaExceeded, NotFound,
 * InvalidParams for an impossible path or a base of the future.
 */
export async function commitEdits(
  database: Database,
  commit: EditCommit,
): Promise<{ revision: number; merged: boolean }> {
  const edits = uniqueEdits(commit.edits);
  const stored = await storeEdits(database.db, edits, commit.quota);
  return database.transaction(async (trx) => {
    const project = await lockProject(trx, commit.project_id);
    const present = await currentVersions(
      trx,
      project.id,
      edits.map(({ path }) => path),
    );
    const proposals = edits.map(({ path, executable }) => {
      const current = present.get(path) ?? null;
      const content = stored.get(path);
      const bit = executable ?? current?.executable ?? false;
      return { path, current, proposed: content === undefined ? null : { ...content, executable: bit } };
    });
    const base = commit.base_revision;
    if (base === undefined) {
      const deltas = proposals.map(({ path, proposed }) => ({ path, to: proposed }));
      return { revision: await writeRevision(trx, project, deltas, commit), merged: false };
    }
    if (base > project.head_revision) throw futureBase(base, project.head_revision);
    const bases = await versionsAt(
      trx,
      project.id,
      edits.map(({ path }) => path),
      base,
    );
    const sides = proposals.map((side) => ({ ...side, base: bases.get(side.path) ?? null }));
    const merge = await mergePaths(trx, sides, LABELS);
    if (merge.conflicts.length > 0) throw conflictError(merge.conflicts, project.head_revision);
    const deltas = [...merge.deltas, ...(await storeMerged(trx, merge.merged, commit.quota))];
    return { revision: await writeRevision(trx, project, deltas, commit), merged: merge.merged.length > 0 };
  });
}

/** Normalise the paths. @throws AppError InvalidParams when two edits are of the same file. */
function uniqueEdits(edits: readonly Edit[]): Edit[] {
  const byPath = new Map<string, Edit>();
  for (const edit of edits) {
    const path = normalizePath(edit.path);
    if (byPath.has(path)) throw new AppError("InvalidParams", `The path ${showPath(path)} is edited twice.`);
    byPath.set(path, { ...edit, path });
  }
  return [...byPath.values()];
}

/** Store what the edits bring, before any lock is held. */
async function storeEdits(
  db: Db,
  edits: readonly Edit[],
  quota: Quota,
): Promise<Map<string, Omit<FileVersion, "executable">>> {
  const written = edits.flatMap(({ path, content }) => (content === null ? [] : [{ path, content }]));
  const stored = await storeFiles(db, written, quota);
  return new Map(stored.map(({ path, ...content }) => [path, content]));
}

/** Store merged texts. @throws AppError QuotaExceeded when a merge of two files that fit does not. */
export async function storeMerged(db: Db, merged: readonly MergedText[], quota: Quota): Promise<Delta[]> {
  const stored = await storeFiles(db, merged, quota);
  return stored.map(({ path, ...to }) => ({ path, to }));
}

function futureBase(base: number, head: number): AppError {
  const message = `The base revision ${base} does not exist yet; the newest is ${head}.`;
  return new AppError("InvalidParams", message, { issues: [{ path: "base_revision", message }] });
}

export interface ImportCommit extends Commit {
  readonly project_id: string;
  /** Files whose contents are stored, with normalised paths, each once. */
  readonly files: readonly NamedVersion[];
  /** Whether to delete what is not among the files. */
  readonly replace: boolean;
}

/**
 * Put many files whose contents are stored already into a project as one revision.
 * @throws AppError Conflict, QuotaExceeded, NotFound.
 */
export async function commitImport(database: Database, commit: ImportCommit): Promise<{ revision: number }> {
  return database.transaction(async (trx) => {
    const project = await lockProject(trx, commit.project_id);
    const deltas: Delta[] = commit.files.map(({ path, ...to }) => ({ path, to: { ...to } }));
    if (commit.replace) deltas.push(...(await deletionsBut(trx, project, commit.files)));
    return { revision: await writeRevision(trx, project, deltas, commit) };
  });
}

async function deletionsBut(trx: Db, project: Project, kept: readonly NamedVersion[]): Promise<Delta[]> {
  const keep = new Set(kept.map(({ path }) => path));
  const present = await trx
    .selectFrom("project_files")
    .select("path")
    .where("project_id", "=", project.id)
    .execute();
  return present.flatMap(({ path }) => (keep.has(path) ? [] : [{ path, to: null }]));
}
