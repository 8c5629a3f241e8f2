import { newId } from "#platform/ids.ts";
import { AppError } from "#schemas";
import type { Database } from "../open.ts";
import type { ChangeRow, Db } from "../schema.ts";
import { type ChangeMerge, clashesOf, mergeFiles, relocations } from "./change-merge.ts";
import { type ChangeFile, changeFiles, filesToStore, getChange, insertChange } from "./changes.ts";
import { versionsAt, writeRevision } from "./commit.ts";
import { decide } from "./decisions.ts";
import { storeMerged } from "./edits.ts";
import { lockProject, revisionNotFound } from "./project.ts";
import type { Conflict, Delta, Project, Quota } from "./types.ts";

/** A longer summary of what is undone is cut, characters. */
const MAX_SUMMARY_CHARS = 200;

/** Who undoes something. */
interface Reverter {
  /** As the history names them. */
  readonly author: string;
  readonly decided_by: string;
  readonly quota: Quota;
}

export interface Reverted {
  readonly state: "accepted" | "proposed";
  /** The project's newest revision. */
  readonly revision: number;
  /** The change that undoes it; none when nothing had to be changed. */
  readonly change_id?: string;
  /** Where it collides with what came since; then the change waits for a resolution. */
  readonly conflicts: Conflict[];
}

/**
 * Undo what one revision did and keep what came after it: its inverse, merged with the present. What was undone before
 * is not undone again.
 * @throws AppError NotFound for a project or revision that does not exist, QuotaExceeded.
 */
export async function revertRevision(
  database: Database,
  revert: Reverter & { readonly project_id: string; readonly revision: number },
): Promise<Reverted> {
  const { project_id, revision } = revert;
  return database.transaction(async (trx) => {
    const project = await lockProject(trx, project_id);
    const made = await findRevision(trx, project_id, revision);
    if (made === undefined) throw revisionNotFound(revision, project.head_revision);
    const files = await inverseOf(trx, project_id, revision);
    return undo(trx, project, { files, revision, what: made.summary }, revert);
  });
}

/**
 * Undo an accepted change, as `revertRevision`. One that was accepted along with another, or had nothing to change, is
 * undone by its own files.
 * @throws AppError NotFound, Conflict (`details.state`) for a change that is not accepted, QuotaExceeded.
 */
export async function revertChange(
  database: Database,
  revert: Reverter & { readonly change_id: string },
): Promise<Reverted> {
  const { project_id } = await getChange(database.db, revert.change_id);
  return database.transaction(async (trx) => {
    const project = await lockProject(trx, project_id);
    const change = await getChange(trx, revert.change_id);
    const { revision } = change;
    if (change.state !== "accepted" || revision === null) throw notAccepted(change);
    const made = await findRevision(trx, project_id, revision);
    const isOwn = made?.change_id === change.id;
    const files = isOwn
      ? await inverseOf(trx, project_id, revision)
      : (await changeFiles(trx, change)).map(({ path, before, after }) => ({
          path,
          before: after,
          after: before,
        }));
    return undo(trx, project, { files, revision, what: change.summary }, revert);
  });
}

async function findRevision(db: Db, projectId: string, revision: number) {
  return db
    .selectFrom("revisions")
    .selectAll()
    .where("project_id", "=", projectId)
    .where("revision", "=", revision)
    .executeTakeFirst();
}

/** What makes a revision's files what they were before it. */
async function inverseOf(db: Db, projectId: string, revision: number): Promise<ChangeFile[]> {
  const rows = await db
    .selectFrom("revision_files")
    .select("path")
    .where("project_id", "=", projectId)
    .where("revision", "=", revision)
    .orderBy("path")
    .execute();
  const paths = rows.map(({ path }) => path);
  const made = await versionsAt(db, projectId, paths, revision);
  const was = await versionsAt(db, projectId, paths, revision - 1);
  return paths.map((path) => ({ path, before: made.get(path) ?? null, after: was.get(path) ?? null }));
}

interface Undoing {
  readonly files: readonly ChangeFile[];
  /** The revision that is undone. */
  readonly revision: number;
  /** Its summary. */
  readonly what: string;
}

async function undo(
  trx: Db,
  project: Project,
  { files, revision, what }: Undoing,
  { author, decided_by, quota }: Reverter,
): Promise<Reverted> {
  const { id: project_id, head_revision } = project;
  const merge = await mergeFiles(trx, { project_id, base_revision: revision, head_revision }, files);
  const conflicts = [...merge.conflicts, ...(await clashesOf(trx, project_id, merge))];
  const id = newId("change");
  const summary = shorten(`Undo revision ${revision}: ${what}`);
  const change = { id, project_id, author, base_revision: revision, summary, reverts: revision };
  const inverse = { ...change, files: filesToStore(files) };
  if (conflicts.length > 0) {
    await insertChange(trx, inverse);
    return { state: "proposed", revision: head_revision, change_id: id, conflicts };
  }
  const deltas = await deltasOf(trx, merge, quota);
  const commit = { author, summary, change_id: id, kind: "rollback", quota } as const;
  const next = await writeRevision(trx, project, deltas, commit);
  if (next === head_revision) return { state: "accepted", revision: next, conflicts };
  await insertChange(trx, inverse);
  await decide(trx, await getChange(trx, id), { state: "accepted", revision: next, decided_by });
  return { state: "accepted", revision: next, change_id: id, conflicts };
}

/** All that a merge without conflicts makes of the project; merged contents are stored. */
async function deltasOf(trx: Db, merge: ChangeMerge, quota: Quota): Promise<Delta[]> {
  const stored = await storeMerged(trx, merge.merged, quota);
  const deltas = [...relocations(merge, () => false), ...merge.deltas, ...stored];
  return [...new Map(deltas.map((delta) => [delta.path, delta])).values()];
}

function shorten(summary: string): string {
  return summary.length > MAX_SUMMARY_CHARS ? `${summary.slice(0, MAX_SUMMARY_CHARS - 1)}…` : summary;
}

function notAccepted({ state }: ChangeRow): AppError {
  return new AppError("Conflict", `The change is ${state}; there is nothing to undo.`, {
    state,
    hint: "Only an accepted change can be undone.",
  });
}
