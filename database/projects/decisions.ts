import { sql } from "kysely";
import { newId } from "#platform/ids.ts";
import { AppError } from "#schemas";
import type { Database } from "../open.ts";
import type { ChangeRow, Db } from "../schema.ts";
import { type Acceptance, alreadyDecided, planAcceptance, prepareAcceptance } from "./acceptance.ts";
import { mergeFiles, relocations } from "./change-merge.ts";
import { type ChangeFile, filesToStore, getChange, insertChange, replaceFiles } from "./changes.ts";
import { writeRevision } from "./commit.ts";
import { storeMerged } from "./edits.ts";
import { lockProject } from "./project.ts";
import { sameVersion } from "./three-way.ts";
import type { Project, Quota } from "./types.ts";

export interface Accepted {
  readonly revision: number;
  /** The change that holds what was not accepted, where something was left. */
  readonly remaining_change_id?: string;
}

/**
 * Make a change, or what was chosen of it, the project's next revision, merged with what came since its base. What was
 * not chosen becomes a change of its own on that revision. Accepting it again answers the same; of two at once, one
 * commits.
 * @throws AppError Conflict with `details.conflicts` where a path needs a resolution (nothing was changed),
 * Conflict with `details.reason` "moved" where the project is not at `expected_head` any more, Conflict for a rejected
 * change, QuotaExceeded, NotFound, InvalidParams for a resolution of another path and for hunks there are not.
 */
export async function acceptChange(database: Database, acceptance: Acceptance): Promise<Accepted> {
  const { quota, decided_by, expected_head } = acceptance;
  const prepared = await prepareAcceptance(database.db, acceptance);
  return database.transaction(async (trx) => {
    // Every decision holds the project's row first, so the change cannot be decided twice.
    const project = await lockProject(trx, prepared.project_id);
    const change = await getChange(trx, acceptance.change_id);
    if (change.state === "accepted") return acceptedBefore(trx, change, project);
    if (change.state === "rejected") throw alreadyDecided(change);
    if (expected_head !== undefined && expected_head !== project.head_revision) throw hasMoved(project);
    const deltas = await planAcceptance(trx, { project, change, acceptance, prepared });
    const { author, summary, id } = change;
    const kind = change.reverts === null ? "agent" : "rollback";
    const revision = await writeRevision(trx, project, deltas, {
      author,
      summary,
      change_id: id,
      kind,
      quota,
    });
    await decide(trx, change, { state: "accepted", revision, decided_by });
    await decideLinked(trx, change, { revision, decided_by });
    if (prepared.left.length === 0) return { revision };
    await replaceFiles(trx, id, filesToStore(prepared.taken));
    const remaining = await keepRest(trx, change, { files: prepared.left, revision, quota });
    return remaining === undefined ? { revision } : { revision, remaining_change_id: remaining };
  });
}

async function acceptedBefore(trx: Db, change: ChangeRow, project: Project): Promise<Accepted> {
  const revision = change.revision ?? project.head_revision;
  const rest = await trx
    .selectFrom("changes")
    .select("id")
    .where("rest_of", "=", change.id)
    .executeTakeFirst();
  return rest === undefined ? { revision } : { revision, remaining_change_id: rest.id };
}

function hasMoved({ head_revision }: Project): AppError {
  return new AppError("Conflict", `The project has moved on to revision ${head_revision}.`, {
    reason: "moved",
    current_revision: head_revision,
    hint: "Nothing was changed. Look at the merge with the present revision and decide again.",
  });
}

/**
 * What was left of a change as a change on the new revision. A file that cannot be merged with it keeps what it was
 * made from, so that the conflict shows where the rest is looked at.
 * @returns its id, undefined when the project has all of it by itself.
 */
async function keepRest(
  trx: Db,
  change: ChangeRow,
  rest: { readonly files: readonly ChangeFile[]; readonly revision: number; readonly quota: Quota },
): Promise<string | undefined> {
  const { project_id, task_id, author, summary, reverts, base_revision } = change;
  const place = { project_id, base_revision, head_revision: rest.revision };
  const merge = await mergeFiles(trx, place, rest.files);
  const merged = await storeMerged(trx, merge.merged, rest.quota);
  const files = new Map<string, ChangeFile>();
  for (const { path, to } of [...relocations(merge, () => false), ...merge.deltas, ...merged]) {
    const before = merge.present.get(path) ?? null;
    if (!sameVersion(before, to)) files.set(path, { path, before, after: to });
  }
  const open = new Set(merge.conflicts.map(({ path }) => path));
  for (const { path, base, proposed } of merge.placed.values()) {
    if (open.has(path)) files.set(path, { path, before: base, after: proposed });
  }
  if (files.size === 0) return undefined;
  const id = newId("change");
  await insertChange(trx, {
    id,
    project_id,
    task_id,
    author,
    base_revision: rest.revision,
    summary,
    reverts,
    rest_of: change.id,
    files: filesToStore([...files.values()]),
  });
  return id;
}

/**
 * Put a change aside for good. Rejecting it again is fine.
 * @throws AppError Conflict for an accepted change, NotFound.
 */
export async function rejectChange(
  database: Database,
  rejection: { readonly change_id: string; readonly decided_by: string },
): Promise<void> {
  const { project_id } = await getChange(database.db, rejection.change_id);
  await database.transaction(async (trx) => {
    await lockProject(trx, project_id);
    const change = await getChange(trx, rejection.change_id);
    if (change.state === "accepted") throw alreadyDecided(change);
    if (change.state === "rejected") return;
    await decide(trx, change, { state: "rejected", revision: null, decided_by: rejection.decided_by });
  });
}

/** Write a decision down. The caller holds the project's row. */
export async function decide(
  trx: Db,
  change: ChangeRow,
  decision: { state: "accepted" | "rejected"; revision: number | null; decided_by: string },
): Promise<void> {
  await trx
    .updateTable("changes")
    .set({ ...decision, decided_at: sql<Date>`now()` })
    .where("id", "=", change.id)
    .execute();
}

/** What an accepted change was made over is accepted with it; what those and it replace is rejected. */
async function decideLinked(
  trx: Db,
  change: ChangeRow,
  { revision, decided_by }: { revision: number; decided_by: string },
): Promise<void> {
  // UNION leaves out what was seen already, so that changes naming each other come to an end.
  await sql`
    WITH RECURSIVE below AS (
      SELECT id, builds_on, resolves FROM changes WHERE id = ${change.id}
      UNION
      SELECT c.id, c.builds_on, c.resolves FROM below b JOIN changes c ON c.id = ANY(b.builds_on)
      WHERE c.project_id = ${change.project_id} AND c.state = 'proposed'
    ), verdicts AS (
      SELECT id, 'accepted' AS state FROM below
      UNION ALL
      SELECT DISTINCT resolves, 'rejected' FROM below
      WHERE resolves IS NOT NULL AND resolves NOT IN (SELECT id FROM below)
    )
    UPDATE changes SET state = verdicts.state, decided_at = now(), decided_by = ${decided_by},
      revision = CASE verdicts.state WHEN 'accepted' THEN ${revision}::int END
    FROM verdicts
    WHERE changes.id = verdicts.id AND changes.project_id = ${change.project_id} AND changes.state = 'proposed'
  `.execute(trx);
}
