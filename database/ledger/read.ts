import { type Selectable, sql } from "kysely";
import { AppError } from "#schemas";
import type { Balance } from "../accounts/balance.ts";
import { madeUpCursor } from "../cursor.ts";
import type { Db, LedgerEntriesTable } from "../schema.ts";

/** @throws AppError NotFound. */
export async function balanceOf(db: Db, user_id: string): Promise<Balance> {
  const balance = await db
    .selectFrom("users")
    .select(["token_balance as balance_microcredits", "token_held as held_microcredits"])
    .where("id", "=", user_id)
    .executeTakeFirst();
  if (balance === undefined) throw new AppError("NotFound", `There is no user ${user_id}.`);
  return balance;
}

export type LedgerEntry = Selectable<LedgerEntriesTable>;

export interface EntryFilter {
  readonly user_id: string;
  readonly task_id?: string | undefined;
  readonly cursor?: string | undefined;
  readonly limit: number;
}

export interface EntryPage {
  readonly entries: LedgerEntry[];
  readonly next_cursor?: string;
}

/** A user's ledger, newest first. @throws AppError InvalidParams for a cursor that is none. */
export async function listEntries(db: Db, filter: EntryFilter): Promise<EntryPage> {
  let query = db.selectFrom("ledger_entries").selectAll().where("user_id", "=", filter.user_id);
  if (filter.task_id !== undefined) query = query.where("task_id", "=", filter.task_id);
  if (filter.cursor !== undefined) query = query.where("id", "<", readCursor(filter.cursor));
  const rows = await query
    .orderBy("id", "desc")
    .limit(filter.limit + 1)
    .execute();
  const entries = rows.slice(0, filter.limit);
  const last = entries.at(-1);
  return rows.length > entries.length && last !== undefined
    ? { entries, next_cursor: String(last.id) }
    : { entries };
}

function readCursor(cursor: string): number {
  if (!/^\d{1,15}$/.test(cursor)) throw madeUpCursor();
  return Number(cursor);
}

export interface UserOff {
  readonly user_id: string;
  readonly balance: number;
  readonly held: number;
  /** Sums of the user's ledger rows: must equal the two above. */
  readonly entries_balance: number;
  readonly entries_held: number;
  /** What open calls and living tasks have set aside: must equal `held`. */
  readonly reserved: number;
  /** What the usage records say was charged, and what the ledger says: must be equal. */
  readonly used: number;
  readonly charged: number;
}

/** Check every account against its ledger, its holds and its usage, in one snapshot. All is well when it is empty. */
export async function auditLedger(db: Db): Promise<{ users_off: UserOff[] }> {
  const { rows } = await sql<UserOff>`
    WITH entries AS (
      SELECT user_id, sum(balance_delta) AS balance, sum(held_delta) AS held,
        -sum(balance_delta) FILTER (WHERE kind = 'settle') AS charged
      FROM ledger_entries GROUP BY user_id
    ), calls AS (
      SELECT user_id, sum(hold_microcredits) AS held FROM llm_calls WHERE state = 'open' GROUP BY user_id
    ), budgets AS (
      SELECT user_id, sum(budget_left) AS held FROM tasks WHERE state IN ('pending', 'running') GROUP BY user_id
    ), used AS (
      SELECT user_id, sum(cost_microcredits) AS cost FROM tokens_used GROUP BY user_id
    ), accounts AS (
      SELECT u.id AS user_id, u.token_balance AS balance, u.token_held AS held,
        coalesce(e.balance, 0) AS entries_balance, coalesce(e.held, 0) AS entries_held,
        coalesce(c.held, 0) + coalesce(b.held, 0) AS reserved,
        coalesce(t.cost, 0) AS used, coalesce(e.charged, 0) AS charged
      FROM users u
      LEFT JOIN entries e ON e.user_id = u.id
      LEFT JOIN calls c ON c.user_id = u.id
      LEFT JOIN budgets b ON b.user_id = u.id
      LEFT JOIN used t ON t.user_id = u.id
    )
    SELECT * FROM accounts
    WHERE balance <> entries_balance OR held <> entries_held OR held <> reserved OR used <> charged
    ORDER BY user_id`.execute(db);
  return { users_off: rows };
}
