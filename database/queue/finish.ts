import { AppError, type TaskError } from "#schemas";
import { inTransaction } from "../in-transaction.ts";
import { insertChange, type NewChange } from "../projects/changes.ts";
import type { Db, TaskRow } from "../schema.ts";
import { type AgentPlan, admitAgentPlan, insertAgentPlan } from "./agent-plan.ts";
import { conclude, lockTask, putBack } from "./conclude.ts";
import { settleDependents } from "./dependents.ts";
import { endTask, type Outcome } from "./end.ts";

export interface Finish {
  readonly task_id: string;
  readonly attempt: number;
  readonly state: Outcome["state"];
  readonly error?: TaskError | undefined;
  /** Stored for review in the same transaction. */
  readonly change?: NewChange | undefined;
  /** Steps to be done after it, of a completed task that may plan; of one that is to be cancelled none are made. */
  readonly plan?: AgentPlan | undefined;
}

/**
 * End a running task exactly once: its change, its last events, the release of its budget and what becomes of the
 * steps after it in one transaction. A result for a project that was deleted meanwhile makes the task fail, and so
 * does a plan that cannot be paid for or would be too much waiting.
 * @returns false when the caller no longer owns it (reaped, put back, ended): nothing was written.
 * @throws AppError InvalidParams for a change the project could not store or a plan whose steps do not fit together,
 * Forbidden for a plan of a task that may make none: the task still runs.
 */
export async function finishTask(db: Db, finish: Finish): Promise<boolean> {
  return inTransaction(db, async (trx) => {
    const task = await lockOwned(trx, finish.task_id, finish.attempt);
    if (task === undefined) return false;
    const outcome = await outcomeOf(trx, finish);
    if (finish.plan === undefined || outcome.state !== "completed" || task.cancel_requested_at !== null) {
      await conclude(trx, task, outcome);
    } else {
      await concludeWithPlan(trx, task, outcome, finish.plan);
    }
    return true;
  });
}

async function concludeWithPlan(trx: Db, task: TaskRow, outcome: Outcome, plan: AgentPlan): Promise<void> {
  const refused = await admitAgentPlan(trx, task, plan).then(() => undefined, refusalOf);
  if (refused !== undefined) {
    await conclude(trx, task, { ...outcome, state: "failed", error: refused });
    return;
  }
  const ended = await endTask(trx, task, outcome);
  const plan_id = await insertAgentPlan(trx, task, plan);
  await settleDependents(trx, { ...ended, plan_id });
}

/** What the task fails with; whatever is the caller's mistake or not ours to judge is thrown on. */
function refusalOf(error: unknown): TaskError {
  if (!(error instanceof AppError)) throw error;
  const { code, message, details } = error;
  if (code !== "QuotaExceeded" && code !== "BudgetExceeded") throw error;
  return { code, message, ...(details.hint === undefined ? {} : { hint: details.hint }) };
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
