import type { Db, UserRow } from "../schema.ts";

/** The administrator who has been one longest by account; undefined on a new server. */
export function oldestAdmin(db: Db): Promise<UserRow | undefined> {
  return db
    .selectFrom("users")
    .selectAll()
    .where("role", "=", "admin")
    .orderBy("id")
    .limit(1)
    .executeTakeFirst();
}
