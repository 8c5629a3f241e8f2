import { sql } from "kysely";
import { AppError, type TaskState, type Usage } from "#schemas";
import { after, createdAtMicros, readCursor, writeCursor } from "../cursor.ts";
import type { Db, PlanRow, TaskRow } from "../schema.ts";

/**
 * A task; with `user_id` only that user's.
 * @throws AppError NotFound, also for another user's: who may not see it learns nothing of it.
 */
export async function getTask(db: Db, task_id: string, user_id?: string): Promise<TaskRow> {
  const task = await db.selectFrom("tasks").selectAll().where("id", "=", task_id).executeTakeFirst();
  if (task === undefined || (user_id !== undefined && task.user_id !== user_id)) throw taskNotFound(task_id);
  return task;
}

export function taskNotFound(task_id: string): AppError {
  return new AppError("NotFound", `There is no task ${task_id}.`);
}

/** The task a user made with an idempotency key. */
export function findByKey(db: Db, user_id: string, key: string): Promise<TaskRow | undefined> {
  return db
    .selectFrom("tasks")
    .selectAll()
    .where("user_id", "=", user_id)
    .where("idempotency_key", "=", key)
    .executeTakeFirst();
}

/** The plan a user made with an idempotency key. */
export function findPlanByKey(db: Db, user_id: string, key: string): Promise<PlanRow | undefined> {
  return db
    .selectFrom("plans")
    .selectAll()
    .where("user_id", "=", user_id)
    .where("idempotency_key", "=", key)
    .executeTakeFirst();
}

/** A user's plan. @throws AppError NotFound, also for another user's. */
export async function getPlan(db: Db, plan_id: string, user_id: string): Promise<PlanRow> {
  const plan = await db.selectFrom("plans").selectAll().where("id", "=", plan_id).executeTakeFirst();
  if (plan?.user_id !== user_id) throw planNotFound(plan_id);
  return plan;
}

export function planNotFound(plan_id: string): AppError {
  return new AppError("NotFound", `There is no plan ${plan_id}.`);
}

/** A plan's tasks in the order of its steps. */
export function planTasks(db: Db, plan_id: string): Promise<TaskRow[]> {
  return db.selectFrom("tasks").selectAll().where("plan_id", "=", plan_id).orderBy("step_nth").execute();
}

/** A step that comes before another, and whether it is still to complete. */
export interface Before {
  readonly step: string;
  readonly completed: boolean;
}

/** The steps that come before tasks, in their order; a task after none has no entry. */
export async function stepsBefore(db: Db, task_ids: readonly string[]): Promise<Map<string, Before[]>> {
  const { rows } = await sql<Before & { task_id: string }>`
    SELECT d.task_id, p.step, p.state = 'completed' AS completed
    FROM task_dependencies d JOIN tasks p ON p.id = d.depends_on
    WHERE d.task_id = ANY(${[...task_ids]}::text[]) ORDER BY p.step_nth`.execute(db);
  return Map.groupBy(rows, ({ task_id }) => task_id);
}

export interface TaskFilter {
  readonly user_id: string;
  readonly project_id?: string | undefined;
  readonly state?: TaskState | undefined;
  readonly cursor?: string | undefined;
  readonly limit: number;
}

export interface TaskPage {
  readonly tasks: TaskRow[];
  readonly next_cursor?: string;
}

/** A user's tasks, newest first. @throws AppError InvalidParams for a cursor that is none. */
export async function listTasks(db: Db, filter: TaskFilter): Promise<TaskPage> {
  let query = db
    .selectFrom("tasks")
    .selectAll()
    .select(createdAtMicros.as("at"))
    .where("user_id", "=", filter.user_id);
  if (filter.project_id !== undefined) query = query.where("project_id", "=", filter.project_id);
  if (filter.state !== undefined) query = query.where("state", "=", filter.state);
  if (filter.cursor !== undefined) query = query.where(after(readCursor(filter.cursor)));
  const rows = await query
    .orderBy("created_at", "desc")
    .orderBy("id", "desc")
    .limit(filter.limit + 1)
    .execute();
  const page = rows.slice(0, filter.limit);
  const last = page.at(-1);
  const tasks = page.map(({ at: _, ...task }) => task);
  return rows.length > page.length && last !== undefined
    ? { tasks, next_cursor: writeCursor(last) }
    : { tasks };
}

/** What tasks have used so far; every id has an entry. */
export async function usageOf(db: Db, task_ids: readonly string[]): Promise<Map<string, Usage>> {
  const usage = new Map<string, Usage>(
    task_ids.map((id) => [id, { input_tokens: 0, output_tokens: 0, cost_microcredits: 0 }]),
  );
  if (task_ids.length === 0) return usage;
  const { rows } = await sql<Usage & { task_id: string }>`
    SELECT task_id, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
      sum(cost_microcredits) AS cost_microcredits
    FROM tokens_used WHERE task_id = ANY(${task_ids}::text[]) GROUP BY task_id`.execute(db);
  for (const { task_id, ...sums } of rows) usage.set(task_id, sums);
  return usage;
}
