import { sql } from "kysely";
import { isTerminal } from "#schemas";
import { inTransaction } from "../in-transaction.ts";
import { notify } from "../open.ts";
import type { Db, TaskRow } from "../schema.ts";
import { CANCEL_CHANNEL } from "./channels.ts";
import { conclude, lockTask } from "./conclude.ts";
import { endTask } from "./end.ts";
import { planNotFound, planTasks, taskNotFound } from "./read.ts";

/** Who asks: a user for a task of their own, or an administrator for anybody's. */
export type Canceller = { readonly user_id: string } | "admin";

/**
 * Ask for a task's end: a waiting one is cancelled at once, a running one is marked and its worker told. One that
 * has ended stays as it is.
 * @returns the task as it is now.
 * @throws AppError NotFound, also for another user's task.
 */
export async function requestCancel(db: Db, by: Canceller, task_id: string): Promise<TaskRow> {
  return inTransaction(db, async (trx) => {
    const task = await lockTask(trx, task_id);
    if (task === undefined || (by !== "admin" && by.user_id !== task.user_id)) throw taskNotFound(task_id);
    if (isTerminal(task.state)) return task;
    if (task.state === "pending") return conclude(trx, task, { state: "cancelled" });
    return markCancelled(trx, task_id);
  });
}

/**
 * Ask for the end of every step of a plan, as `requestCancel` does for one.
 * @returns its tasks as they are now, in the order of the steps.
 * @throws AppError NotFound, also for another user's plan.
 */
export async function requestCancelPlan(db: Db, by: Canceller, plan_id: string): Promise<TaskRow[]> {
  return inTransaction(db, async (trx) => {
    const plan = await trx
      .selectFrom("plans")
      .select("user_id")
      .where("id", "=", plan_id)
      .forNoKeyUpdate()
      .executeTakeFirst();
    if (plan === undefined || (by !== "admin" && by.user_id !== plan.user_id)) throw planNotFound(plan_id);
    // All of them before the account's row, in the order of locks.
    const tasks = await trx
      .selectFrom("tasks")
      .selectAll()
      .where("plan_id", "=", plan_id)
      .orderBy("id")
      .forNoKeyUpdate()
      .execute();
    for (const task of tasks) {
      if (task.state === "pending") await endTask(trx, task, { state: "cancelled" });
      if (task.state === "running") await markCancelled(trx, task.id);
    }
    return planTasks(trx, plan_id);
  });
}

/** Mark a locked running task and tell its worker. */
async function markCancelled(trx: Db, task_id: string): Promise<TaskRow> {
  const marked = await trx
    .updateTable("tasks")
    .set({ cancel_requested_at: sql<Date>`coalesce(cancel_requested_at, clock_timestamp())` })
    .where("id", "=", task_id)
    .returningAll()
    .executeTakeFirstOrThrow();
  await notify(trx, CANCEL_CHANNEL, task_id);
  return marked;
}
