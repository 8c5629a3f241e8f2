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

export interface LedgerEntry extends Selectable<LedgerEntriesTable> {
  /** The user's balance when this entry had been made. */
  readonly balance_after: number;
}

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

/**
 * A user's ledger, newest first. The balances are reckoned back from the present one over an index, in the snapshot
 * the entries are read in: exact, and as much work as there are charges after the page's last entry.
 * @throws AppError InvalidParams for a cursor that is none.
 */
export async function listEntries(db: Db, filter: EntryFilter): Promise<EntryPage> {
  const { user_id, task_id, cursor, limit } = filter;
  const ofTask = task_id === undefined ? sql`` : sql`AND task_id = ${task_id}`;
  const older = cursor === undefined ? sql`` : sql`AND id < ${readCursor(cursor)}`;
  const { rows } = await sql<LedgerEntry>`
    WITH page AS (
      SELECT *, lag(id) OVER (ORDER BY id DESC) AS newer FROM (
        SELECT * FROM ledger_entries WHERE user_id = ${user_id} ${ofTask} ${older}
        ORDER BY id DESC LIMIT ${limit + 1}
      ) AS newest
    )
    SELECT p.id, p.user_id, p.kind, p.balance_delta, p.held_delta, p.task_id, p.call_id, p.note,
      p.idempotency_key, p.created_at,
      u.token_balance - sum(since.delta) OVER (ORDER BY p.id DESC) AS balance_after
    FROM page p
    CROSS JOIN LATERAL (
      -- What changed the balance between this entry and the one shown above it.
      SELECT coalesce(sum(e.balance_delta), 0) AS delta FROM ledger_entries e
      WHERE e.user_id = ${user_id} AND e.balance_delta <> 0 AND e.id > p.id
        AND e.id <= coalesce(p.newer, 9223372036854775807)
    ) AS since
    JOIN users u ON u.id = p.user_id
    ORDER BY p.id DESC`.execute(db);
  const entries = rows.slice(0, limit);
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
  /** What the account says is spent since its budget's period began, and what the records say: must be equal. */
  readonly spent: number;
  readonly used_since: number;
  /** Projects of the user's of which the same is not true: must be none. */
  readonly projects_off: string[];
}

/** Check every account against its ledger, holds, usage and budgets, in one snapshot. All is well when it is empty. */
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
      SELECT t.user_id, sum(t.cost_microcredits) AS cost,
        sum(t.cost_microcredits) FILTER (WHERE t.created_at >= u.spent_since) AS since
      FROM tokens_used t JOIN users u ON u.id = t.user_id GROUP BY t.user_id
    ), projects_off AS (
      SELECT p.owner_id, array_agg(p.id) AS ids FROM projects p
      LEFT JOIN (
        SELECT h.id, sum(u.cost_microcredits) AS since FROM tokens_used u JOIN tasks t ON t.id = u.task_id
        JOIN projects h ON h.id = t.project_id AND u.created_at >= h.spent_since GROUP BY h.id
      ) s ON s.id = p.id
      WHERE p.spent_microcredits <> coalesce(s.since, 0) GROUP BY p.owner_id
    ), accounts AS (
      SELECT u.id AS user_id, u.token_balance AS balance, u.token_held AS held,
        coalesce(e.balance, 0) AS entries_balance, coalesce(e.held, 0) AS entries_held,
        coalesce(c.held, 0) + coalesce(b.held, 0) AS reserved,
        coalesce(t.cost, 0) AS used, coalesce(e.charged, 0) AS charged,
        u.spent_microcredits AS spent, coalesce(t.since, 0) AS used_since,
        coalesce(p.ids, '{}') AS projects_off
      FROM users u
      LEFT JOIN entries e ON e.user_id = u.id
      LEFT JOIN calls c ON c.user_id = u.id
      LEFT JOIN budgets b ON b.user_id = u.id
      LEFT JOIN used t ON t.user_id = u.id
      LEFT JOIN projects_off p ON p.owner_id = u.id
    )
    SELECT * FROM accounts
    WHERE balance <> entries_balance OR held <> entries_held OR held <> reserved OR used <> charged
      OR spent <> used_since OR projects_off <> '{}'
    ORDER BY user_id`.execute(db);
  return { users_off: rows };
}
