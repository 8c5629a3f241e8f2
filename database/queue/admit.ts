import { AppError, isTerminal } from "#schemas";
import { type Budget, budgetExceeded, lockFunds, lockProjectBudget, roomOf } from "../ledger/budgets.ts";
import type { Db } from "../schema.ts";

/** What a user has for something new, while nobody else can take it. */
export interface Gate {
  /** Micro-credits of the balance that nothing is held for. */
  readonly free: number;
  readonly budgets: { readonly user: Budget; readonly project: Budget | undefined };
}

/**
 * One dispatch of a user at a time, to the end of the transaction: so key, limit and balance hold exactly.
 * @throws AppError NotFound (no such user).
 */
export async function lockGate(trx: Db, user_id: string, project_id: string): Promise<Gate> {
  // Before the account, in the order of locks.
  const project = await lockProjectBudget(trx, project_id);
  const account = await lockFunds(trx, user_id);
  if (account === undefined) throw new AppError("NotFound", `There is no user ${user_id}.`);
  return { free: account.free, budgets: { user: account.budget, project } };
}

/** What balance and budgets leave. @throws the refusal of whichever leaves least, when that is too little. */
export function leastOf({ free, budgets }: Gate, minimum: number): number {
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

/** @throws AppError QuotaExceeded when `more` tasks would be too many that wait. */
export async function checkPending(trx: Db, user_id: string, more: number, limit: number): Promise<void> {
  const { waiting } = await trx
    .selectFrom("tasks")
    .select(({ fn }) => fn.countAll<number>().as("waiting"))
    .where("user_id", "=", user_id)
    .where("state", "=", "pending")
    .executeTakeFirstOrThrow();
  if (waiting + more <= limit) return;
  const for_ = more === 1 ? "" : ` and want ${more} more`;
  throw new AppError("QuotaExceeded", `You have ${waiting} waiting tasks${for_}; the limit is ${limit}.`, {
    quota: "pending_tasks",
    limit,
    actual: waiting,
    hint: "Wait until some have run, or cancel some.",
  });
}

/**
 * Whether a session can go on from `continues`.
 * @throws AppError NotFound (also for somebody else's), Conflict (it has not ended), InvalidParams (of another
 * project).
 */
export async function checkContinues(
  db: Db,
  { user_id, project_id }: { readonly user_id: string; readonly project_id: string },
  continues: string,
): Promise<void> {
  const task = await db
    .selectFrom("tasks")
    .select(["user_id", "project_id", "state"])
    .where("id", "=", continues)
    .executeTakeFirst();
  if (task === undefined || task.user_id !== user_id) {
    throw new AppError("NotFound", `There is no task ${continues} to continue.`);
  }
  if (task.project_id !== project_id) {
    const message = "is a task of another project";
    throw new AppError("InvalidParams", `continues ${message}`, { issues: [{ path: "continues", message }] });
  }
  if (isTerminal(task.state)) return;
  throw new AppError("Conflict", `The task ${continues} has not ended, so nothing can go on from it.`, {
    hint: "Wait for its end, or cancel it.",
    task_id: continues,
  });
}

/** PostgreSQL's text cannot hold NUL. @throws AppError InvalidParams. */
export function refuseNul(texts: Readonly<Record<string, string | undefined>>): void {
  for (const [path, text] of Object.entries(texts)) {
    if (text?.includes("\0") !== true) continue;
    const message = "must not contain a NUL character";
    throw new AppError("InvalidParams", `${path} ${message}`, { issues: [{ path, message }] });
  }
}

function insufficient(free: number, minimum: number): AppError {
  return new AppError("InsufficientBalance", "Your balance does not cover a task.", {
    available_microcredits: free,
    required_microcredits: minimum,
    hint: "Ask an administrator for more, or wait until a running task gives back what it does not need.",
  });
}
