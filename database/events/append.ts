import { sql } from "kysely";
import type { TaskEventBody } from "#schemas";
import { EVENTS_CHANNEL } from "../queue/channels.ts";
import type { Db } from "../schema.ts";
import { toJsonb } from "./jsonb.ts";

/**
 * Append to a running task's log in one statement, with one announcement.
 * @returns the seq of the last one, or null when this attempt no longer owns the task: nothing was written.
 */
export async function appendEvents(
  db: Db,
  { task_id, attempt }: { task_id: string; attempt: number },
  bodies: readonly TaskEventBody[],
): Promise<{ last_seq: number } | null> {
  const { rows } = await sql<{ last_seq: number }>`
    WITH t AS (
      UPDATE tasks SET last_seq = last_seq + ${bodies.length}
      WHERE id = ${task_id} AND state = 'running' AND attempt = ${attempt}
      RETURNING id, last_seq
    ), e AS (
      INSERT INTO task_events (task_id, seq, type, data)
      SELECT t.id, t.last_seq - ${bodies.length} + n, body ->> 'type', body - 'type'
      FROM t, jsonb_array_elements(${toJsonb(bodies)}::jsonb) WITH ORDINALITY AS _(body, n)
    )
    SELECT t.last_seq, pg_notify(${EVENTS_CHANNEL}, t.id || ':' || t.last_seq) FROM t`.execute(db);
  return rows[0] === undefined ? null : { last_seq: rows[0].last_seq };
}
