import type { TaskError } from "#schemas";
import { inTransaction } from "../in-transaction.ts";
import { insertChange, type NewChange } from "../projects/changes.ts";
import type { Db, TaskRow } from "../schema.ts";
import { conclude, lockTask, type Outcome, putBack } from "./conclude.ts";

export interface Finish {
  readonly task_id: string;
  readonly attempt: number;
  readonly state: Outcome["state"];
  readonly error?: TaskError | undefined;
  /** Stored for review in the same transaction. */
  readonly change?: NewChange | undefined;
}

/**
 * End a running task exactly once: its change, its last events and the release of its budget in one transaction.
 * A result for a project that was deleted meanwhile makes the task fail.
 * @returns false when the caller no longer owns it (reaped, put back, ended): nothing was written.
 * @throws AppError InvalidParams for a change the project could not store: the task still runs.
 */
export async function finishTask(db: Db, finish: Finish): Promise<boolean> {
  return inTransaction(db, async (trx) => {
    const task = await lockOwned(trx, finish.task_id, finish.attempt);
    if (task === undefined) return false;
    await conclude(trx, task, await outcomeOf(trx, finish));
    return true;
  });
}

async function outcomeOf(trx: Db, { state, error, change }: Finish): Promise<Outcome> {
  if (change === undefined) return { state, error };
  if (await insertChange(trx, change)) {
    const { id, base_revision, files } = change;
    return { state, error, change: { id, base_revision, files: files.length } };
  }
  const message = "The project was deleted while the task ran; its result is lost.";
  return { state: "failed", error: error ?? { code: "NotFound", message } };
}

/**
 * Give a running task back to the queue, for a shutdown or a failure worth another try (whether the attempts
 * allow one is the caller's judgement). One that is to be cancelled ends instead.
 * @returns false when the caller no longer owns it.
 */
export async function requeueTask(
  db: Db,
  task_id: string,
  attempt: number,
  { delay_ms, note }: { delay_ms: number; note: string },
): Promise<boolean> {
  return inTransaction(db, async (trx) => {
    const task = await lockOwned(trx, task_id, attempt);
    if (task === undefined) return false;
    if (task.cancel_requested_at === null) await putBack(trx, task, delay_ms, note);
    else await conclude(trx, task, { state: "cancelled" });
    return true;
  });
}

async function lockOwned(trx: Db, task_id: string, attempt: number): Promise<TaskRow | undefined> {
  const task = await lockTask(trx, task_id);
  return task?.state === "running" && task.attempt === attempt ? task : undefined;
}
