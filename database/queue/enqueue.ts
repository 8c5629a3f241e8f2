import { sql } from "kysely";
import { AppError } from "#schemas";
import { inTransaction } from "../in-transaction.ts";
import { microcredits } from "../ledger/amount.ts";
import { type Budget, budgetExceeded, lockFunds, lockProjectBudget, roomOf } from "../ledger/budgets.ts";
import type { Db, TaskRow } from "../schema.ts";
import { QUEUE_CHANNEL } from "./channels.ts";
import { findByKey } from "./read.ts";

export interface NewTask {
  readonly id: string;
  readonly user_id: string;
  readonly project_id: string;
  readonly agent: string;
  readonly runner: string;
  readonly model: string;
  readonly prompt: string;
  /** 1 (may wait) .. 9 (first). */
  readonly priority: number;
  readonly max_attempts: number;
  /** Micro-credits to hold for the task, its hard ceiling; less is held where less is free. */
  readonly budget: number;
  /** Micro-credits below which the task is refused; default 1. */
  readonly minimum_hold?: number;
  /** Waiting tasks one user may have. */
  readonly pendingLimit: number;
  /** The same key of the same user answers the first task again. */
  readonly idempotency_key?: string | undefined;
}

export interface Enqueued {
  readonly task: TaskRow;
  /** False when the idempotency key was known: nothing was changed. */
  readonly created: boolean;
}

/**
 * Put a task into the queue, with its hold and its first event, in one transaction. The hold is what balance and
 * budgets leave of the budget asked for.
 * @throws AppError NotFound (no such user), QuotaExceeded (too many waiting), InsufficientBalance, BudgetExceeded,
 * InvalidParams (a text PostgreSQL cannot keep).
 */
export async function enqueueTask(db: Db, task: NewTask): Promise<Enqueued> {
  const minimum = microcredits("minimum_hold", task.minimum_hold ?? 1);
  const budget = microcredits("budget", task.budget);
  refuseNul(task);
  return inTransaction(db, async (trx) => {
    // Before the account, in the order of locks.
    const ofProject = await lockProjectBudget(trx, task.project_id);
    // The account's row is the gate: one dispatch of a user at a time, so key, limit and balance hold exactly.
    const account = await lockFunds(trx, task.user_id);
    if (account === undefined) throw new AppError("NotFound", `There is no user ${task.user_id}.`);
    if (task.idempotency_key !== undefined) {
      const known = await findByKey(trx, task.user_id, task.idempotency_key);
      if (known !== undefined) return { task: known, created: false };
    }
    await checkPending(trx, task);
    const left = leastOf(account.free, { user: account.budget, project: ofProject }, minimum);
    return { task: await insertTask(trx, task, Math.min(budget, left)), created: true };
  });
}

/** What balance and budgets leave. @throws the refusal of whichever leaves least, when that is too little. */
function leastOf(
  free: number,
  budgets: { readonly user: Budget; readonly project: Budget | undefined },
  minimum: number,
): number {
  let left = free;
  let refusal = () => insufficient(free, minimum);
  for (const scope of ["user", "project"] as const) {
    const budget = budgets[scope];
    if (budget === undefined || roomOf(budget) >= left) continue;
    left = roomOf(budget);
    refusal = () => budgetExceeded(scope, budget, minimum);
  }
  if (left < minimum) throw refusal();
  return left;
}

async function checkPending(trx: Db, task: NewTask): Promise<void> {
  const { waiting } = await trx
    .selectFrom("tasks")
    .select(({ fn }) => fn.countAll<number>().as("waiting"))
    .where("user_id", "=", task.user_id)
    .where("state", "=", "pending")
    .executeTakeFirstOrThrow();
  if (waiting < task.pendingLimit) return;
  throw new AppError(
    "QuotaExceeded",
    `You have ${waiting} waiting tasks; the limit is ${task.pendingLimit}.`,
    {
      quota: "pending_tasks",
      limit: task.pendingLimit,
      actual: waiting,
      hint: "Wait until some have run, or cancel some.",
    },
  );
}

async function insertTask(trx: Db, task: NewTask, held: number): Promise<TaskRow> {
  const { rows } = await sql<TaskRow & { announced: unknown }>`
    WITH t AS (
      INSERT INTO tasks (id, user_id, project_id, agent, runner, model, prompt, priority, max_attempts,
        budget_microcredits, budget_left, idempotency_key, last_seq)
      VALUES (${task.id}, ${task.user_id}, ${task.project_id}, ${task.agent}, ${task.runner}, ${task.model},
        ${task.prompt}, ${task.priority}, ${task.max_attempts}, ${held}::bigint, ${held}::bigint,
        ${task.idempotency_key ?? null}, 1)
      RETURNING *
    ), u AS (
      UPDATE users SET token_held = token_held + ${held}::bigint WHERE id = ${task.user_id}
    ), l AS (
      INSERT INTO ledger_entries (user_id, kind, balance_delta, held_delta, task_id, idempotency_key)
      SELECT user_id, 'hold', 0, budget_left, id, 'task:' || id || ':hold' FROM t WHERE budget_left > 0
    ), e AS (
      INSERT INTO task_events (task_id, seq, type, data) SELECT id, 1, 'state', '{"state":"pending"}' FROM t
    )
    SELECT t.*, pg_notify(${QUEUE_CHANNEL}, '') AS announced FROM t`.execute(trx);
  const [row] = rows;
  if (row === undefined) throw new Error("INSERT ... RETURNING gave no row");
  const { announced: _, ...inserted } = row;
  return inserted;
}

function insufficient(free: number, minimum: number): AppError {
  return new AppError("InsufficientBalance", "Your balance does not cover a task.", {
    available_microcredits: free,
    required_microcredits: minimum,
    hint: "Ask an administrator for more, or wait until a running task gives back what it does not need.",
  });
}

/** PostgreSQL's text cannot hold NUL. */
function refuseNul(task: NewTask): void {
  for (const path of ["prompt", "model", "agent", "idempotency_key", "project_id"] as const) {
    if (task[path]?.includes("\0") !== true) continue;
    const message = "must not contain a NUL character";
    throw new AppError("InvalidParams", `${path} ${message}`, { issues: [{ path, message }] });
  }
}
