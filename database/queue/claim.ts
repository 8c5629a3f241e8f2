import { sql } from "kysely";
import type { Db, TaskRow } from "../schema.ts";

/** Points of priority a waiting task gains per minute. */
export const AGING_PER_MINUTE = 1;

/** A running task: its `attempt` is the fencing token every later write names. */
export type ClaimedTask = TaskRow;

export interface Limits {
  /** Tasks one user may have running, over all instances. */
  readonly per_user: number;
  /** A user's tasks start at least this far apart, seconds; retries do not count. */
  readonly seconds_between: number;
}

export interface Claim extends Limits {
  /** The instance that will run it. */
  readonly worker_id: string;
  /** Tasks this instance runs at once. */
  readonly capacity: number;
  /** How long the task is ours without a renewal, ms. */
  readonly lease_ms: number;
}

/**
 * Take the next task in the queue's order (migration `queue-functions` says which), or null when none may start.
 * Not for use inside a transaction: other claimers wait for its end.
 */
export async function claimTask(db: Db, claim: Claim): Promise<ClaimedTask | null> {
  const { rows } = await sql<TaskRow>`
    SELECT * FROM claim_task(${claim.worker_id}, ${claim.capacity}::integer, ${claim.per_user}::integer,
      ${claim.seconds_between}::float8, ${claim.lease_ms}::float8, ${AGING_PER_MINUTE}::float8)`.execute(db);
  return rows[0] ?? null;
}
