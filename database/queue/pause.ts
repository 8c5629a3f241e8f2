import { sql } from "kysely";
import { isTerminal } from "#schemas";
import { toJsonb } from "../events/jsonb.ts";
import { inTransaction } from "../in-transaction.ts";
import { notify } from "../open.ts";
import type { Db, TaskRow } from "../schema.ts";
import { EVENTS_CHANNEL, PAUSE_CHANNEL, QUEUE_CHANNEL } from "./channels.ts";
import { getTask } from "./read.ts";

/**
 * Let a task of the user's rest: a waiting one leaves the line and keeps its age, a running one is marked and its
 * worker told, who holds it at its next model call. One that rests already, or has ended, stays as it is.
 * @returns the task as it is now.
 * @throws AppError NotFound, also for another user's task.
 */
export function pauseTask(db: Db, user_id: string, task_id: string): Promise<TaskRow> {
  return setPaused(db, user_id, task_id, true);
}

/** Let a task go on that rests; otherwise as `pauseTask`. */
export function resumeTask(db: Db, user_id: string, task_id: string): Promise<TaskRow> {
  return setPaused(db, user_id, task_id, false);
}

/** The task's row is the only lock: neither money nor another task is touched. */
function setPaused(db: Db, user_id: string, task_id: string, paused: boolean): Promise<TaskRow> {
  return inTransaction(db, async (trx) => {
    await sql`SELECT 1 FROM tasks WHERE id = ${task_id} FOR NO KEY UPDATE`.execute(trx);
    const task = await getTask(trx, task_id, user_id);
    if (isTerminal(task.state) || (task.paused_at !== null) === paused) return task;
    if (task.state === "running") await notify(trx, PAUSE_CHANNEL, `${paused ? "+" : "-"}${task_id}`);
    const told =
      task.state === "pending" ? [{ state: "pending", note: paused ? "Paused." : "Goes on." }] : [];
    const { rows } = await sql<TaskRow>`
      WITH t AS (
        UPDATE tasks SET paused_at = ${paused ? sql`clock_timestamp()` : sql`NULL`},
          last_seq = last_seq + ${told.length}
        WHERE id = ${task_id} RETURNING *
      ), e AS (
        INSERT INTO task_events (task_id, seq, type, data)
        SELECT t.id, t.last_seq, 'state', body FROM t, jsonb_array_elements(${toJsonb(told)}::jsonb) body
      )
      SELECT * FROM t`.execute(trx);
    const [row] = rows;
    if (row === undefined) throw new Error("the locked task is gone");
    if (told.length > 0) await notify(trx, EVENTS_CHANNEL, `${task_id}:${row.last_seq}`);
    if (!paused) await notify(trx, QUEUE_CHANNEL, "");
    return row;
  });
}
