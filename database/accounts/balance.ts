import { sql } from "kysely";
import { AppError } from "#schemas";
import { inTransaction } from "../in-transaction.ts";
import type { Db } from "../schema.ts";
import { notFound } from "./users.ts";

export interface Balance {
  readonly balance_microcredits: number;
  /** The part of it held for running work. */
  readonly held_microcredits: number;
}

/**
 * Give or take so that the balance becomes exactly this; the ledger gets the difference. The same
 * `idempotency_key` for the same user changes nothing a second time.
 * Throws NotFound, or Conflict when more than that is held for running work.
 */
export function setBalance(
  db: Db,
  user_id: string,
  balance_microcredits: number,
  { idempotency_key, note }: { idempotency_key: string; note?: string },
): Promise<Balance> {
  const key = `grant:${user_id}:${idempotency_key}`;
  return inTransaction(db, async (trx) => {
    const user = await trx
      .selectFrom("users")
      .select(["token_balance", "token_held"])
      .where("id", "=", user_id)
      .forUpdate()
      .executeTakeFirst();
    if (user === undefined) return notFound();
    const held_microcredits = user.token_held;
    const done = await trx
      .selectFrom("ledger_entries")
      .select("id")
      .where("idempotency_key", "=", key)
      .executeTakeFirst();
    if (done !== undefined) return { balance_microcredits: user.token_balance, held_microcredits };
    if (balance_microcredits < held_microcredits) {
      throw new AppError("Conflict", "More than that is held for running tasks.", {
        hint: "Wait for the tasks to end, or cancel them.",
        held_microcredits,
      });
    }
    await trx
      .updateTable("users")
      .set({ token_balance: balance_microcredits, updated_at: sql<Date>`now()` })
      .where("id", "=", user_id)
      .execute();
    await trx
      .insertInto("ledger_entries")
      .values({
        user_id,
        kind: "grant",
        balance_delta: balance_microcredits - user.token_balance,
        held_delta: 0,
        note: note ?? null,
        idempotency_key: key,
      })
      .execute();
    return { balance_microcredits, held_microcredits };
  });
}
