import { sql } from "kysely";
import { type WaitReason, waitReasonSchema } from "#schemas";
import type { Db } from "../schema.ts";
import { AGING_PER_MINUTE, type Limits } from "./claim.ts";
import { ALIVE_SECONDS } from "./instances.ts";

export interface QueueView {
  /** 1 = next to start; what is not in the line has none. */
  position?: number;
  /** Why it waits, when it does. */
  reason?: WaitReason;
}

export interface ViewLimits extends Limits {
  /** Places to reckon with while no instance is alive to say its own. */
  readonly capacity: number;
}

/**
 * Where waiting tasks stand, in the order of `claimTask`, and why they wait (MU-5), or why they are not in the line.
 * Ids of tasks that do not wait have no entry.
 */
export async function queueView(
  db: Db,
  task_ids: readonly string[],
  { capacity, per_user, seconds_between }: ViewLimits,
): Promise<Map<string, QueueView>> {
  if (task_ids.length === 0) return new Map();
  const { rows } = await sql<{ task_id: string; position: number | null; reason: string | null }>`
    WITH live AS (
      SELECT i.blocked_reason, i.capacity > (
        SELECT count(*) FROM tasks t WHERE t.state = 'running' AND t.worker_id = i.id) AS has_place
      FROM instances i
      WHERE i.heartbeat_at > clock_timestamp() - make_interval(secs => ${ALIVE_SECONDS}::float8)
    ), machine AS (
      -- One that takes tasks decides; when all are blocked, what blocks most of them is the reason.
      SELECT CASE WHEN bool_and(blocked_reason IS NOT NULL)
          THEN mode() WITHIN GROUP (ORDER BY blocked_reason) END AS blocked,
        CASE WHEN count(*) > 0 THEN coalesce(bool_or(has_place) FILTER (WHERE blocked_reason IS NULL), false)
          ELSE ${capacity}::integer > (SELECT count(*) FROM tasks WHERE state = 'running') END AS has_place
      FROM live
    )
    SELECT q.task_id, q.place AS position,
      CASE
        WHEN m.blocked IS NOT NULL THEN m.blocked
        WHEN q.reason IS NOT NULL THEN q.reason
        WHEN NOT m.has_place THEN 'max_concurrent_reached'
      END AS reason
    FROM queue_order(clock_timestamp(), ${per_user}::integer, ${seconds_between}::float8,
      ${AGING_PER_MINUTE}::float8) q CROSS JOIN machine m
    WHERE q.task_id = ANY(${task_ids}::text[])
    UNION ALL
    SELECT id, NULL, CASE WHEN blocked THEN 'waits_for_step' ELSE 'paused' END FROM tasks
    WHERE id = ANY(${task_ids}::text[]) AND state = 'pending' AND (blocked OR paused_at IS NOT NULL)`.execute(
    db,
  );
  return new Map(
    rows.map(({ task_id, position, reason }) => {
      const known = waitReasonSchema.safeParse(reason);
      return [
        task_id,
        { ...(position === null ? {} : { position }), ...(known.success ? { reason: known.data } : {}) },
      ];
    }),
  );
}
