import { sql } from "kysely";
import { inTransaction } from "../in-transaction.ts";
import type { Db } from "../schema.ts";
import { conclude, lockPlanOf, putBack } from "./conclude.ts";
import { getTask } from "./read.ts";

/** Tasks looked at per call; the rest waits for the next. */
const REAP_LIMIT = 500;

/** A claim of a task. */
export interface Lease {
  readonly task_id: string;
  readonly attempt: number;
}

/** What is known of a lease after it was to be renewed. */
export interface Renewed {
  /** False: the task is no longer its holder's, who stops at once. */
  readonly alive: boolean;
  /** Its user wants it ended. */
  readonly cancel: boolean;
  /** It is to be held before its next model call. */
  readonly paused: boolean;
}

/**
 * Keep running tasks for another `lease_ms`, in one statement that waits for nobody.
 * @returns what is known of each; one whose row somebody has at this moment is missing: ask again.
 */
export async function renewLeases(
  db: Db,
  leases: readonly Lease[],
  lease_ms: number,
): Promise<(Lease & Renewed)[]> {
  const { rows } = await sql<Lease & Renewed>`
    WITH asked AS (
      SELECT * FROM unnest(${leases.map(({ task_id }) => task_id)}::text[],
        ${leases.map(({ attempt }) => attempt)}::integer[]) AS _(id, attempt)
    ), ours AS (
      SELECT t.id, t.attempt FROM asked JOIN tasks t USING (id, attempt) WHERE t.state = 'running'
    ), free AS (
      SELECT t.id, t.attempt FROM asked JOIN tasks t USING (id, attempt) WHERE t.state = 'running'
      FOR NO KEY UPDATE OF t SKIP LOCKED
    ), renewed AS (
      UPDATE tasks SET lease_until = clock_timestamp() + make_interval(secs => ${lease_ms}::float8 / 1000)
      FROM free WHERE tasks.id = free.id
      RETURNING tasks.id, tasks.attempt, cancel_requested_at IS NOT NULL AS cancel,
        paused_at IS NOT NULL AS paused
    )
    SELECT id AS task_id, attempt, renewed.id IS NOT NULL AS alive,
      coalesce(cancel, false) AS cancel, coalesce(paused, false) AS paused
    FROM asked LEFT JOIN ours USING (id, attempt) LEFT JOIN renewed USING (id, attempt)
    WHERE renewed.id IS NOT NULL OR ours.id IS NULL`.execute(db);
  return rows;
}

export interface Reaped {
  requeued: number;
  failed: number;
  cancelled: number;
}

/**
 * Take tasks away from workers whose lease is over: back into the queue, or to their end when the attempts are
 * used up or their user cancelled. What their model calls still hold is released.
 * @param own tasks the caller itself is at work on: on an overloaded machine it renews late, but it is alive.
 */
export async function reapExpired(db: Db, own: readonly string[] = []): Promise<Reaped> {
  const expired = await db
    .selectFrom("tasks")
    .select("id")
    .where("state", "=", "running")
    .where("lease_until", "<", sql<Date>`clock_timestamp()`)
    .where("id", "<>", sql<string>`ALL(${[...own]}::text[])`)
    .orderBy("lease_until")
    .limit(REAP_LIMIT)
    .execute();
  const reaped: Reaped = { requeued: 0, failed: 0, cancelled: 0 };
  for (const { id } of expired) {
    const fate = await inTransaction(db, (trx) => reap(trx, id));
    if (fate !== undefined) reaped[fate] += 1;
  }
  return reaped;
}

/** One task per transaction: locks of several could be taken in another order than somebody else's. */
async function reap(trx: Db, id: string): Promise<keyof Reaped | undefined> {
  await lockPlanOf(trx, id);
  const expired = await trx
    .selectFrom("tasks")
    .select("attempt")
    .where("id", "=", id)
    .where("state", "=", "running")
    .where("lease_until", "<", sql<Date>`clock_timestamp()`)
    .forNoKeyUpdate()
    .skipLocked()
    .executeTakeFirst();
  if (expired === undefined) return undefined;
  await sql`SELECT release_call(id) FROM llm_calls
    WHERE task_id = ${id} AND attempt = ${expired.attempt} AND state = 'open'`.execute(trx);
  // Read after the release: what the calls held is in the task's budget now.
  const task = await getTask(trx, id);
  if (task.cancel_requested_at !== null) {
    await conclude(trx, task, { state: "cancelled" });
    return "cancelled";
  }
  const message = `The worker of attempt ${task.attempt} of ${task.max_attempts} stopped answering.`;
  if (task.attempt < task.max_attempts) {
    await putBack(trx, task, 0, message);
    return "requeued";
  }
  const hint = "Dispatch it again; the server's log has the details.";
  await conclude(trx, task, { state: "failed", error: { code: "RunFailed", message, hint } });
  return "failed";
}
