import { sql } from "kysely";
import { toJsonb } from "../events/jsonb.ts";
import type { Db, TaskRow } from "../schema.ts";
import { EVENTS_CHANNEL, QUEUE_CHANNEL } from "./channels.ts";
import { settleDependents } from "./dependents.ts";
import { endTask, type Outcome } from "./end.ts";

/** A task's row, locked until the transaction ends, after its plan's: the first locks in the order of locks. */
export async function lockTask(trx: Db, task_id: string): Promise<TaskRow | undefined> {
  await lockPlanOf(trx, task_id);
  return trx.selectFrom("tasks").selectAll().where("id", "=", task_id).forNoKeyUpdate().executeTakeFirst();
}

/** Nothing else ends a step of the same plan until the transaction ends; a task of no plan has nothing to lock. */
export async function lockPlanOf(trx: Db, task_id: string): Promise<void> {
  await sql`SELECT id FROM plans WHERE id = (SELECT plan_id FROM tasks WHERE id = ${task_id})
    FOR NO KEY UPDATE`.execute(trx);
}

/** End a locked task for good, and with it what can no longer run; what waited for nothing else becomes free. */
export async function conclude(trx: Db, task: TaskRow, outcome: Outcome): Promise<TaskRow> {
  const ended = await endTask(trx, task, outcome);
  await settleDependents(trx, ended);
  return ended;
}

/** Put a locked running task back into the queue; whoever ran it is fenced out by its state. */
export async function putBack(trx: Db, task: TaskRow, delay_ms: number, note: string): Promise<void> {
  await sql`
    WITH t AS (
      UPDATE tasks SET state = 'pending', worker_id = NULL, user_slot = NULL, lease_until = NULL,
        available_at = clock_timestamp() + make_interval(secs => ${delay_ms}::float8 / 1000),
        last_seq = last_seq + 1
      WHERE id = ${task.id} RETURNING id, last_seq
    ), e AS (
      INSERT INTO task_events (task_id, seq, type, data)
      SELECT t.id, t.last_seq, 'state', ${toJsonb({ state: "pending", attempt: task.attempt, note })}::jsonb FROM t
    )
    SELECT pg_notify(${EVENTS_CHANNEL}, t.id || ':' || t.last_seq), pg_notify(${QUEUE_CHANNEL}, '') FROM t
  `.execute(trx);
}
