import { sql } from "kysely";
import { newId } from "#platform/ids.ts";
import { inTransaction } from "../in-transaction.ts";
import type { Db, UserRow } from "../schema.ts";
import { bumpTokenVersion } from "./users.ts";

export interface NewRefreshToken {
  /** SHA-256 of the token. */
  readonly hash: Buffer;
  readonly user_id: string;
  readonly expires_at: Date;
  /** One sign-in and everything refreshed from it; left out, a new one. */
  readonly family_id?: string;
}

export async function insertRefreshToken(db: Db, token: NewRefreshToken): Promise<void> {
  await db
    .insertInto("refresh_tokens")
    .values({
      token_hash: token.hash,
      family_id: token.family_id ?? newId("token"),
      user_id: token.user_id,
      expires_at: token.expires_at,
    })
    .execute();
}

export type Rotation = { readonly user: UserRow } | "reused" | "invalid";

/**
 * Exchange a token for the next one of its family; of several at once one wins.
 * "invalid": unknown, expired or revoked. "reused": it was exchanged before, so two people have it: its
 * family is revoked and every access token of the user ends (other sign-ins refresh theirs).
 */
export function rotateRefreshToken(
  db: Db,
  { hash, newHash, expires_at }: { hash: Buffer; newHash: Buffer; expires_at: Date },
): Promise<Rotation> {
  return inTransaction(db, async (trx) => {
    // The user's row first, as everybody who deletes or changes users does: no deadlock.
    const user = await trx
      .selectFrom("users")
      .selectAll()
      .where("id", "=", (eb) =>
        eb.selectFrom("refresh_tokens").select("user_id").where("token_hash", "=", hash),
      )
      .forNoKeyUpdate()
      .executeTakeFirst();
    if (user === undefined) return "invalid";
    const token = await trx
      .selectFrom("refresh_tokens")
      .select(["family_id", "used_at", "revoked_at", sql<boolean>`expires_at <= now()`.as("expired")])
      .where("token_hash", "=", hash)
      .forUpdate()
      .executeTakeFirst();
    if (token === undefined || token.revoked_at !== null) return "invalid";
    if (token.used_at !== null) {
      await revokeWhere(trx, "family_id", token.family_id);
      await bumpTokenVersion(trx, user.id);
      return "reused";
    }
    if (token.expired) return "invalid";
    await trx
      .updateTable("refresh_tokens")
      .set({ used_at: sql<Date>`now()` })
      .where("token_hash", "=", hash)
      .execute();
    const { family_id } = token;
    await insertRefreshToken(trx, { hash: newHash, user_id: user.id, expires_at, family_id });
    return { user };
  });
}

/** Sign out: revoke the token with this hash and its whole family. False when there is none. */
export async function revokeFamily(db: Db, hash: Buffer): Promise<boolean> {
  const { numUpdatedRows } = await db
    .updateTable("refresh_tokens")
    .set({ revoked_at: sql<Date>`now()` })
    .where("family_id", "=", (eb) =>
      eb.selectFrom("refresh_tokens").select("family_id").where("token_hash", "=", hash),
    )
    .where("revoked_at", "is", null)
    .executeTakeFirst();
  return numUpdatedRows > 0n;
}

/** Sign out everywhere; access tokens end with `bumpTokenVersion`. */
export async function revokeAllRefresh(db: Db, user_id: string): Promise<void> {
  await revokeWhere(db, "user_id", user_id);
}

async function revokeWhere(db: Db, column: "family_id" | "user_id", value: string): Promise<void> {
  await db
    .updateTable("refresh_tokens")
    .set({ revoked_at: sql<Date>`now()` })
    .where(column, "=", value)
    .where("revoked_at", "is", null)
    .execute();
}

/** Forget tokens past their expiry (used ones are kept until then, to notice reuse). Returns how many. */
export async function deleteExpiredRefresh(db: Db): Promise<number> {
  const { numDeletedRows } = await db
    .deleteFrom("refresh_tokens")
    .where("expires_at", "<", sql<Date>`now()`)
    .executeTakeFirst();
  return Number(numDeletedRows);
}
