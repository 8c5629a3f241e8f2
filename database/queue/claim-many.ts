import { sql } from "kysely";
import { inTransaction } from "../in-transaction.ts";
import type { Db, TaskRow } from "../schema.ts";
import { EVENTS_CHANNEL } from "./channels.ts";
import { AGING_PER_MINUTE, type Claim, type ClaimedTask, claimTask } from "./claim.ts";

/**
 * Take up to `limit` tasks, the same ones and in the same order as `claimTask` again and again. Judging everybody's
 * waiting tasks costs more the more wait: here it is done once for all of them.
 *
 * Where a user may have several tasks running, one that starts changes that user's place in the order: then it is one.
 */
export async function claimTasks(db: Db, claim: Claim, limit: number): Promise<ClaimedTask[]> {
  const claimed = limit > 1 && claim.per_user === 1 ? await claimFirst(db, claim, limit) : [];
  if (claimed.length > 0) return claimed;
  // Also when somebody else has every one that was chosen: then it is waited for.
  const task = await claimTask(db, claim);
  return task === null ? [] : [task];
}

function claimFirst(db: Db, claim: Claim, limit: number): Promise<ClaimedTask[]> {
  const { worker_id, capacity, per_user, seconds_between, lease_ms } = claim;
  return inTransaction(db, async (trx) => {
    // A statement of its own: the next one then sees what the claimer before us committed.
    await sql`SELECT pg_advisory_xact_lock(hashtext('cds_claim_task'))`.execute(trx);
    const { rows } = await sql<TaskRow & { nth: number; announced: unknown }>`
      WITH chosen AS (
        SELECT l.task_id, row_number() OVER (ORDER BY l.score DESC, l.running, l.last_started NULLS FIRST,
          l.created_at, l.task_id) AS nth
        FROM queue_line(clock_timestamp(), ${per_user}::integer, ${seconds_between}::float8,
          ${AGING_PER_MINUTE}::float8, true) l
        WHERE l.may_start
      ), free AS (
        SELECT t.id, chosen.nth FROM chosen JOIN tasks t ON t.id = chosen.task_id
        WHERE t.state = 'pending' AND t.paused_at IS NULL
          AND chosen.nth <= least(${limit}::bigint, ${capacity}::bigint -
            (SELECT count(*) FROM tasks WHERE state = 'running' AND worker_id = ${worker_id}))
        -- Several rows are locked at once: nobody who holds one of them is waited for.
        FOR NO KEY UPDATE OF t SKIP LOCKED
      ), claimed AS (
        UPDATE tasks t SET
          state = 'running', attempt = t.attempt + 1, worker_id = ${worker_id}, user_slot = 0,
          lease_until = clock_timestamp() + make_interval(secs => ${lease_ms}::float8 / 1000),
          started_at = coalesce(t.started_at, clock_timestamp()), last_seq = t.last_seq + 1
        FROM free WHERE t.id = free.id
        RETURNING t.*, free.nth
      ), told AS (
        INSERT INTO task_events (task_id, seq, type, data)
        SELECT id, last_seq, 'state', jsonb_build_object('state', 'running', 'attempt', attempt) FROM claimed
      )
      SELECT claimed.*, pg_notify(${EVENTS_CHANNEL}, id || ':' || last_seq) AS announced
      FROM claimed ORDER BY nth`.execute(trx);
    return rows.map(({ nth: _, announced: __, ...task }) => task);
  });
}
