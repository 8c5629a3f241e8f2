import { sql } from "kysely";
import type { TaskError } from "#schemas";
import { toJsonb } from "../events/jsonb.ts";
import type { Db, TaskRow } from "../schema.ts";
import { EVENTS_CHANNEL, QUEUE_CHANNEL } from "./channels.ts";
import { endTask } from "./end.ts";

/**
 * What the end of a step means for those after it, in the transaction of that end and under the lock of its plan:
 * they become free when it was the last they waited for, or can never run.
 */
export async function settleDependents(trx: Db, ended: TaskRow): Promise<void> {
  if (ended.plan_id === null) return;
  if (ended.state === "completed") await freeDependents(trx, ended.plan_id, ended.id);
  else await cancelDependents(trx, ended);
}

/** Steps after `task_id` that wait for nothing any more take their place in the line. */
async function freeDependents(trx: Db, plan_id: string, task_id: string): Promise<void> {
  const { rows: free } = await sql<{ id: string; builds_on: string[] }>`
    SELECT t.id, t.builds_on FROM task_dependencies d JOIN tasks t ON t.id = d.task_id
    WHERE d.depends_on = ${task_id} AND t.state = 'pending' AND t.blocked AND NOT EXISTS (
      SELECT 1 FROM task_dependencies o JOIN tasks p ON p.id = o.depends_on
      WHERE o.task_id = t.id AND p.state <> 'completed')
    ORDER BY t.step_nth`.execute(trx);
  if (free.length === 0) return;
  const made = await madeIn(trx, plan_id);
  for (const { id, builds_on } of free) {
    const before = await predecessors(trx, id);
    await enterLine(trx, id, basesOf(builds_on, before, made));
  }
}

interface Made {
  readonly change_id: string | null;
  readonly builds_on: readonly string[];
  readonly resolves: string | null;
}

/** What each change made in a plan contains already. */
async function madeIn(trx: Db, plan_id: string): Promise<Map<string, readonly string[]>> {
  const tasks = await trx
    .selectFrom("tasks")
    .select(["change_id", "builds_on", "resolves"])
    .where("plan_id", "=", plan_id)
    .execute();
  return new Map(
    tasks.flatMap(({ change_id, builds_on, resolves }) =>
      change_id === null ? [] : [[change_id, resolves === null ? builds_on : [...builds_on, resolves]]],
    ),
  );
}

async function predecessors(trx: Db, task_id: string): Promise<Made[]> {
  const { rows } = await sql<Made>`
    SELECT p.change_id, p.builds_on, p.resolves FROM task_dependencies d JOIN tasks p ON p.id = d.depends_on
    WHERE d.task_id = ${task_id} ORDER BY p.step_nth`.execute(trx);
  return rows;
}

/**
 * The changes a step starts from: what it was given and what the steps before it made, without those that another
 * one of them contains. A step that changed nothing hands on what it started from itself.
 */
export function basesOf(
  given: readonly string[],
  before: readonly Made[],
  made: ReadonlyMap<string, readonly string[]>,
): string[] {
  const handed = before.flatMap(({ change_id, builds_on }) => (change_id === null ? builds_on : [change_id]));
  const wanted = new Set([...given, ...handed]);
  const contained = new Set<string>();
  const open = [...wanted];
  for (let change = open.pop(); change !== undefined; change = open.pop()) {
    for (const inner of made.get(change) ?? []) {
      if (contained.has(inner)) continue;
      contained.add(inner);
      open.push(inner);
    }
  }
  return [...wanted].filter((change) => !contained.has(change));
}

async function enterLine(trx: Db, task_id: string, bases: readonly string[]): Promise<void> {
  const state = { state: "pending", note: "What it waited for is done." };
  await sql`
    WITH t AS (
      UPDATE tasks SET blocked = false, builds_on = ${[...bases]}::text[], last_seq = last_seq + 1
      WHERE id = ${task_id} RETURNING id, last_seq
    ), e AS (
      INSERT INTO task_events (task_id, seq, type, data)
      SELECT t.id, t.last_seq, 'state', ${toJsonb(state)}::jsonb FROM t
    )
    SELECT pg_notify(${EVENTS_CHANNEL}, t.id || ':' || t.last_seq), pg_notify(${QUEUE_CHANNEL}, '') FROM t
  `.execute(trx);
}

/** Every step that needs the ended one, directly or through others, ends with it. */
async function cancelDependents(trx: Db, ended: TaskRow): Promise<void> {
  const { rows: lost } = await sql<TaskRow>`
    WITH RECURSIVE later AS (
      SELECT task_id FROM task_dependencies WHERE depends_on = ${ended.id}
      UNION
      SELECT d.task_id FROM later l JOIN task_dependencies d ON d.depends_on = l.task_id
    )
    SELECT t.* FROM later l JOIN tasks t ON t.id = l.task_id WHERE t.state = 'pending'
    ORDER BY t.step_nth FOR NO KEY UPDATE OF t`.execute(trx);
  const error = neededStep(ended);
  for (const task of lost) await endTask(trx, task, { state: "cancelled", error });
}

function neededStep({ id, step, state }: TaskRow): TaskError {
  const fate = state === "failed" ? "failed" : "was cancelled";
  return {
    code: "Cancelled",
    message: `Step "${step}" ${fate}, and this one comes after it.`,
    hint: `See what became of step "${step}" (task ${id}), then dispatch what is missing again.`,
  };
}
