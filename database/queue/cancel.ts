import { sql } from "kysely";
import { isTerminal } from "#schemas";
import { inTransaction } from "../in-transaction.ts";
import { notify } from "../open.ts";
import type { Db, TaskRow } from "../schema.ts";
import { CANCEL_CHANNEL } from "./channels.ts";
import { conclude, lockTask } from "./conclude.ts";
import { taskNotFound } from "./read.ts";

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
    const marked = await trx
      .updateTable("tasks")
      .set({ cancel_requested_at: sql<Date>`coalesce(cancel_requested_at, clock_timestamp())` })
      .where("id", "=", task_id)
      .returningAll()
      .executeTakeFirstOrThrow();
    await notify(trx, CANCEL_CHANNEL, task_id);
    return marked;
  });
}
