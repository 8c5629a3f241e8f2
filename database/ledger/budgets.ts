import { type RawBuilder, sql } from "kysely";
import { AppError } from "#schemas";
import { notFound } from "../accounts/users.ts";
import { inTransaction } from "../in-transaction.ts";
import { projectNotFound } from "../projects/project.ts";
import type { Db } from "../schema.ts";
import { microcredits } from "./amount.ts";

/** How long a budget lasts: a calendar month in UTC, or for good. */
type BudgetPeriod = "month" | "total";

/** A ceiling on what may be spent, as it stands at this moment. Amounts in micro-credits. */
export interface Budget {
  /** Null = no ceiling; what is spent is known all the same. */
  readonly limit: number | null;
  readonly period: BudgetPeriod;
  /** Within the present period. */
  readonly spent: number;
  /** Set aside for work that is waiting or running. */
  readonly held: number;
  /** When the next period begins; null when none does. */
  readonly resets_at: Date | null;
}

export interface BudgetSetting {
  readonly limit: number | null;
  readonly period: BudgetPeriod;
}

/** What a row of users or projects has spent in its present period, by the database's clock. */
export const spentNow: RawBuilder<number> = sql<number>`
  budget_spent(budget_period, spent_since, spent_microcredits, clock_timestamp())`;

const resetsAt = sql<Date | null>`CASE budget_period WHEN 'month' THEN
  (date_trunc('month', clock_timestamp(), 'UTC') AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC' END`;

/** A budget's columns of a row of users or projects, but for what is held. */
const COLUMNS = sql`budget_limit AS "limit", budget_period AS period, ${spentNow} AS spent,
  ${resetsAt} AS resets_at`;

/** @throws AppError NotFound. */
export async function userBudget(db: Db, user_id: string): Promise<Budget> {
  return (await fundsOf(db, user_id))?.budget ?? notFound();
}

/** What an account has for something new. */
export interface Funds {
  /** Micro-credits of the balance that nothing is held for. */
  readonly free: number;
  readonly budget: Budget;
}

/** @returns undefined when there is no such user. */
export async function fundsOf(db: Db, user_id: string, lock = sql``): Promise<Funds | undefined> {
  const { rows } = await sql<Budget & { free: number }>`
    SELECT ${COLUMNS}, token_held AS held, token_balance - token_held AS free
    FROM users WHERE id = ${user_id} ${lock}`.execute(db);
  const [row] = rows;
  if (row === undefined) return undefined;
  const { free, ...budget } = row;
  return { free, budget };
}

/** The same, and nothing else may be held or charged until the transaction ends. */
export function lockFunds(trx: Db, user_id: string): Promise<Funds | undefined> {
  return fundsOf(trx, user_id, sql`FOR NO KEY UPDATE`);
}

/** The budgets of several users; an id that is nobody's has no entry. */
export async function userBudgets(db: Db, user_ids: readonly string[]): Promise<Map<string, Budget>> {
  const { rows } = await sql<Budget & { id: string }>`
    SELECT id, ${COLUMNS}, token_held AS held FROM users WHERE id = ANY(${user_ids}::text[])`.execute(db);
  return new Map(rows.map(({ id, ...budget }) => [id, budget]));
}

/** @throws AppError NotFound. */
export async function projectBudget(db: Db, project_id: string): Promise<Budget> {
  const { rows } = await sql<Budget>`
    SELECT ${COLUMNS}, project_held(id) AS held FROM projects WHERE id = ${project_id}`.execute(db);
  const [budget] = rows;
  if (budget === undefined) throw projectNotFound(project_id);
  return budget;
}

/**
 * Hold a project's row to the transaction's end and read its budget: whatever makes its work cost more waits.
 * @returns undefined when it has no ceiling, or is gone.
 */
export async function lockProjectBudget(trx: Db, project_id: string): Promise<Budget | undefined> {
  const project = await trx
    .selectFrom("projects")
    .select("budget_limit")
    .where("id", "=", project_id)
    .forNoKeyUpdate()
    .executeTakeFirst();
  // Another statement, for the sum must see what those we waited for have committed.
  return (project?.budget_limit ?? null) === null ? undefined : projectBudget(trx, project_id);
}

/**
 * Set a user's ceiling; null takes it away. What is spent of it is counted anew from the records. Set below what is
 * spent and held, it stops everything new; what is held already may still be spent.
 * @throws AppError NotFound.
 */
export function setUserBudget(db: Db, user_id: string, setting: BudgetSetting): Promise<Budget> {
  const start = sql`budget_start(${setting.period}, statement_timestamp())`;
  const limit = checkLimit(setting.limit);
  return inTransaction(db, async (trx) => {
    // Locked in a statement of its own: the sum below then sees every call settled before.
    await trx.selectFrom("users").select("id").where("id", "=", user_id).forNoKeyUpdate().execute();
    await sql`
      UPDATE users SET budget_limit = ${limit}::bigint, budget_period = ${setting.period}, spent_since = ${start},
        updated_at = now(), spent_microcredits = coalesce((
          SELECT sum(cost_microcredits) FROM tokens_used WHERE user_id = ${user_id} AND created_at >= ${start}), 0)
      WHERE id = ${user_id}`.execute(trx);
    return userBudget(trx, user_id);
  });
}

/** The same for a project, all of whose tasks it bounds together. @throws AppError NotFound. */
export function setProjectBudget(db: Db, project_id: string, setting: BudgetSetting): Promise<Budget> {
  const start = sql`budget_start(${setting.period}, statement_timestamp())`;
  const limit = checkLimit(setting.limit);
  return inTransaction(db, async (trx) => {
    await trx.selectFrom("projects").select("id").where("id", "=", project_id).forNoKeyUpdate().execute();
    await sql`
      UPDATE projects SET budget_limit = ${limit}::bigint, budget_period = ${setting.period},
        spent_since = ${start}, spent_microcredits = coalesce((
          SELECT sum(u.cost_microcredits) FROM tasks t JOIN tokens_used u ON u.task_id = t.id
          WHERE t.project_id = ${project_id} AND u.created_at >= ${start}), 0)
      WHERE id = ${project_id}`.execute(trx);
    return projectBudget(trx, project_id);
  });
}

function checkLimit(limit: number | null): number | null {
  return limit === null ? null : microcredits("limit", limit);
}

/** Micro-credits a budget leaves for something new. */
export function roomOf({ limit, spent, held }: Budget): number {
  return limit === null ? Number.POSITIVE_INFINITY : Math.max(0, limit - spent - held);
}

const HINTS = {
  user: "Ask an administrator to raise it, or wait until running work gives back what it holds",
  project: "Raise it with budget.set, or wait until running work gives back what it holds",
} as const;

/** `required` micro-credits are more than a budget leaves. */
export function budgetExceeded(scope: keyof typeof HINTS, budget: Budget, required: number): AppError {
  const { limit, period, spent, held, resets_at } = budget;
  const whose = scope === "user" ? "Your budget" : "The project's budget";
  const when = period === "month" ? " for this month" : "";
  const renewed = resets_at === null ? "." : `, or until it begins anew at ${resets_at.toISOString()}.`;
  return new AppError("BudgetExceeded", `${whose}${when} does not cover this.`, {
    scope,
    limit,
    spent,
    held,
    ...(resets_at === null ? {} : { resets_at: resets_at.toISOString() }),
    available_microcredits: roomOf(budget),
    required_microcredits: required,
    hint: `${HINTS[scope]}${renewed}`,
  });
}
