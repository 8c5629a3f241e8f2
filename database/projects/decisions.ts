import { sql } from "kysely";
import { AppError } from "#schemas";
import type { Database } from "../open.ts";
import type { ChangeRow, Db } from "../schema.ts";
import { storeFiles } from "./blobs.ts";
import { changeFiles, getChange, mergeChange } from "./changes.ts";
import { conflictError, writeRevision } from "./commit.ts";
import { storeMerged } from "./edits.ts";
import { normalizePath, showPath } from "./paths.ts";
import { lockProject } from "./project.ts";
import type { Conflict, Delta, FileVersion, Quota } from "./types.ts";

/** What a person decided to keep at a path; null deletes it. */
interface Resolution {
  readonly path: string;
  readonly content: Buffer | null;
}

export interface Acceptance {
  readonly change_id: string;
  /** The user who decides. */
  readonly decided_by: string;
  readonly resolutions?: readonly Resolution[];
  /**
   * The revision the resolutions were made at: a file changed since is a conflict again instead of being
   * overwritten. Without it the resolutions win over whatever the project has.
   */
  readonly current_revision?: number | undefined;
  readonly quota: Quota;
}

/**
 * Make a change the project's next revision, merged with what came since its base. Accepting it again
 * answers the same revision; of two at once, one commits.
 * @throws AppError Conflict with `details.conflicts` where a path needs a resolution (nothing was changed),
 * Conflict for a rejected change, QuotaExceeded, NotFound, InvalidParams for a resolution of another path.
 */
export async function acceptChange(
  database: Database,
  acceptance: Acceptance,
): Promise<{ revision: number }> {
  const { quota, decided_by } = acceptance;
  const { project_id } = await getChange(database.db, acceptance.change_id);
  const resolved = await storeResolutions(database.db, acceptance.resolutions ?? [], quota);
  return database.transaction(async (trx) => {
    // Every decision holds the project's row first, so the change cannot be decided twice.
    const project = await lockProject(trx, project_id);
    const change = await getChange(trx, acceptance.change_id);
    if (change.state === "accepted") return { revision: change.revision ?? project.head_revision };
    if (change.state === "rejected") throw decided(change);
    const files = await changeFiles(trx, change);
    const foreign = [...resolved.keys()].find((path) => !files.some((file) => file.path === path));
    if (foreign !== undefined) throw notInChange(foreign);
    const merge = await mergeChange(trx, change, files);
    const isOpen = ({ path }: { path: string }) => !resolved.has(path);
    const open: Conflict[] = merge.conflicts.filter(isOpen);
    for (const path of resolved.keys()) {
      const changedAt = merge.present.get(path)?.revision ?? 0;
      if (changedAt > (acceptance.current_revision ?? changedAt)) open.push({ path, kind: "content" });
    }
    if (open.length > 0) throw conflictError(open, project.head_revision);
    const deltas: Delta[] = merge.deltas.filter(isOpen);
    deltas.push(...(await storeMerged(trx, merge.merged.filter(isOpen), quota)));
    for (const [path, content] of resolved) {
      const executable = files.some((file) => file.path === path && file.after?.executable === true);
      deltas.push({ path, to: content && { ...content, executable } });
    }
    const { author, summary, id } = change;
    const commit = { author, summary, change_id: id, kind: "agent", quota } as const;
    const revision = await writeRevision(trx, project, deltas, commit);
    await decide(trx, change, { state: "accepted", revision, decided_by });
    await decideLinked(trx, change, { revision, decided_by });
    return { revision };
  });
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
    if (change.state === "accepted") throw decided(change);
    if (change.state === "rejected") return;
    await decide(trx, change, { state: "rejected", revision: null, decided_by: rejection.decided_by });
  });
}

async function decide(
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

function decided(change: ChangeRow): AppError {
  const hint =
    change.state === "accepted"
      ? "project.rollback brings back an older revision."
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
): Promise<Map<string, Omit<FileVersion, "executable"> | null>> {
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
