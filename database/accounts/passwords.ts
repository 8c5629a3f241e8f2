import { sql } from "kysely";
import { inTransaction } from "../in-transaction.ts";
import type { Db, UserRow } from "../schema.ts";
import { revokeAllRefresh } from "./refresh-tokens.ts";
import { notFound } from "./users.ts";

/** A new password: every session of the user ends with the old one. Throws NotFound. */
export function setPassword(db: Db, user_id: string, password_hash: string): Promise<UserRow> {
  return inTransaction(db, async (trx) => {
    const user = await trx
      .updateTable("users")
      .set((eb) => ({
        password_hash,
        token_version: eb("token_version", "+", 1),
        updated_at: sql<Date>`now()`,
      }))
      .where("id", "=", user_id)
      .returningAll()
      .executeTakeFirst();
    if (user === undefined) return notFound();
    await revokeAllRefresh(trx, user_id);
    return user;
  });
}

/** The same password hashed by today's parameters, unless it was changed meanwhile. */
export async function replacePasswordHash(
  db: Db,
  { user_id, old_hash, new_hash }: { user_id: string; old_hash: string; new_hash: string },
): Promise<void> {
  await db
    .updateTable("users")
    .set({ password_hash: new_hash })
    .where("id", "=", user_id)
    .where("password_hash", "=", old_hash)
    .execute();
}
