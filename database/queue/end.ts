import { sql } from "kysely";
import type { TaskError, TaskEventBody } from "#schemas";
import { toJsonb } from "../events/jsonb.ts";
import type { Db, TaskRow } from "../schema.ts";
import { EVENTS_CHANNEL, QUEUE_CHANNEL } from "./channels.ts";
import { usageOf } from "./read.ts";

export interface Outcome {
  readonly state: "completed" | "failed" | "cancelled";
  readonly error?: TaskError | undefined;
  /** The change set that came of it, and how many files it touches. */
  readonly change?:
    | { readonly id: string; readonly base_revision: number; readonly files: number }
    | undefined;
}

/**
 * Write a locked task's end: last events (usage, change, error, done), what is left of its budget goes back to the
 * account. A model call still open keeps its own hold and settles against the account later. What comes after it
 * in a plan is the caller's to settle.
 */
export async function endTask(trx: Db, task: TaskRow, outcome: Outcome): Promise<TaskRow> {
  const events = await lastEvents(trx, task, outcome);
  const error = outcome.error === undefined ? null : toJsonb(outcome.error);
  const { rows } = await sql<TaskRow & { announced: unknown; freed: unknown }>`
    WITH t AS (
      UPDATE tasks SET state = ${outcome.state}, error = ${error}::jsonb,
        change_id = ${outcome.change?.id ?? null},
        base_revision = coalesce(${outcome.change?.base_revision ?? null}::integer, base_revision),
        user_slot = NULL, lease_until = NULL, budget_left = 0, finished_at = clock_timestamp(),
        blocked = false, paused_at = NULL, last_seq = last_seq + ${events.length}
      WHERE id = ${task.id} RETURNING *
    ), e AS (
      INSERT INTO task_events (task_id, seq, type, data)
      SELECT t.id, t.last_seq - ${events.length} + n, body ->> 'type', body - 'type'
      FROM t, jsonb_array_elements(${toJsonb(events)}::jsonb) WITH ORDINALITY AS _(body, n)
    ), u AS (
      UPDATE users SET token_held = token_held - ${task.budget_left}::bigint
      WHERE id = ${task.user_id} AND ${task.budget_left}::bigint > 0 RETURNING id
    ), l AS (
      INSERT INTO ledger_entries (user_id, kind, balance_delta, held_delta, task_id, idempotency_key)
      SELECT u.id, 'release', 0, -${task.budget_left}::bigint, ${task.id}, ${`task:${task.id}:release`} FROM u
    )
    SELECT t.*, pg_notify(${EVENTS_CHANNEL}, t.id || ':' || t.last_seq) AS announced,
      pg_notify(${QUEUE_CHANNEL}, '') AS freed
    FROM t`.execute(trx);
  const [row] = rows;
  if (row === undefined) throw new Error("the locked task is gone");
  const { announced: _, freed: __, ...ended } = row;
  return ended;
}

async function lastEvents(
  trx: Db,
  task: TaskRow,
  { state, error, change }: Outcome,
): Promise<TaskEventBody[]> {
  const events: TaskEventBody[] = [];
  const used = (await usageOf(trx, [task.id])).get(task.id);
  if (used !== undefined) events.push({ type: "usage", ...used });
  if (change !== undefined) events.push({ type: "change", change_id: change.id, files: change.files });
  if (error !== undefined) events.push({ type: "error", ...error });
  events.push({
    type: "done",
    state,
    ...(change === undefined ? {} : { change_id: change.id }),
    ...(error === undefined ? {} : { error }),
  });
  return events;
}
