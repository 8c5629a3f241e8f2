import { AppError } from "#schemas";
import { inTransaction } from "../in-transaction.ts";
import { microcredits } from "../ledger/amount.ts";
import type { Db, TaskRow } from "../schema.ts";
import { checkContinues, checkPending, leastOf, lockGate, refuseNul } from "./admit.ts";
import { insertTask, type TaskCore } from "./insert.ts";
import { findByKey, findPlanByKey } from "./read.ts";

export interface NewTask extends TaskCore {
  /** Micro-credits to hold for the task, its hard ceiling; less is held where less is free. */
  readonly budget: number;
  /** Micro-credits below which the task is refused; default 1. */
  readonly minimum_hold?: number;
  /** Waiting tasks one user may have. */
  readonly pendingLimit: number;
}

export interface Enqueued {
  readonly task: TaskRow;
  /** False when the idempotency key was known: nothing was changed. */
  readonly created: boolean;
}

/**
 * Put a task into the queue, with its hold and its first event, in one transaction. The hold is what balance and
 * budgets leave of the budget asked for.
 * @throws AppError NotFound (no such user, or task to continue), QuotaExceeded (too many waiting),
 * InsufficientBalance, BudgetExceeded, InvalidParams (a text PostgreSQL cannot keep, `continues` of another
 * project), Conflict (`continues` has not ended; the key is a plan's).
 */
export async function enqueueTask(db: Db, task: NewTask): Promise<Enqueued> {
  const minimum = microcredits("minimum_hold", task.minimum_hold ?? 1);
  const budget = microcredits("budget", task.budget);
  const { user_id, project_id, idempotency_key, continues } = task;
  const { prompt, model, agent } = task;
  refuseNul({ prompt, model, agent, idempotency_key, project_id, continues });
  return inTransaction(db, async (trx) => {
    const gate = await lockGate(trx, user_id, project_id);
    if (idempotency_key !== undefined) {
      const known = await findByKey(trx, user_id, idempotency_key);
      if (known !== undefined) return { task: known, created: false };
      if ((await findPlanByKey(trx, user_id, idempotency_key)) !== undefined) throw keyTaken("a plan");
    }
    if (continues !== undefined) await checkContinues(trx, task, continues);
    await checkPending(trx, user_id, 1, task.pendingLimit);
    const held = Math.min(budget, leastOf(gate, minimum));
    return { task: await insertTask(trx, { ...task, held }), created: true };
  });
}

/** A key used again for something of another kind is a mistake that must not look like success. */
export function keyTaken(by: string): AppError {
  return new AppError("Conflict", `This idempotency key belongs to ${by}.`, {
    hint: "Use a new key for something new.",
  });
}
