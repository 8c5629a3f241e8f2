import { sql } from "kysely";
import type { Db, ProviderRow } from "../schema.ts";

export interface ProviderSetting {
  readonly user_id: string;
  readonly base_url: string;
  /** Sealed for this user and host; left out: the stored one stays, unless the base URL changes. */
  readonly api_key_encrypted?: Buffer | undefined;
  /** Empty: whatever the provider has. */
  readonly models: readonly string[];
}

/** Store the user's provider. A key is never carried over to another base URL. */
export function setProvider(db: Db, setting: ProviderSetting): Promise<ProviderRow> {
  const base_url = setting.base_url.replace(/\/+$/, "");
  const key = setting.api_key_encrypted ?? null;
  return db
    .insertInto("providers")
    .values({ user_id: setting.user_id, base_url, api_key_encrypted: key, models: [...setting.models] })
    .onConflict((conflict) =>
      conflict.column("user_id").doUpdateSet({
        base_url: (eb) => eb.ref("excluded.base_url"),
        models: (eb) => eb.ref("excluded.models"),
        api_key_encrypted: sql<Buffer | null>`CASE
          WHEN excluded.api_key_encrypted IS NOT NULL THEN excluded.api_key_encrypted
          WHEN providers.base_url = excluded.base_url THEN providers.api_key_encrypted
        END`,
        updated_at: sql<Date>`now()`,
      }),
    )
    .returningAll()
    .executeTakeFirstOrThrow();
}

export function getProvider(db: Db, user_id: string): Promise<ProviderRow | undefined> {
  return db.selectFrom("providers").selectAll().where("user_id", "=", user_id).executeTakeFirst();
}

/** Whether there was one. */
export async function deleteProvider(db: Db, user_id: string): Promise<boolean> {
  const { numDeletedRows } = await db
    .deleteFrom("providers")
    .where("user_id", "=", user_id)
    .executeTakeFirst();
  return numDeletedRows > 0n;
}
