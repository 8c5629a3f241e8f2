import { sql } from "kysely";
import { newId } from "#platform/ids.ts";
import { AppError, type Role } from "#schemas";
import { isUniqueViolation } from "../errors.ts";
import { inTransaction } from "../in-transaction.ts";
import type { Db, UserRow } from "../schema.ts";

const E_MAIL = /^[^@\s]+@[^@\s]+\.[^@\s]+$/;

export interface NewUser {
  readonly id?: string;
  readonly username: string;
  readonly password_hash: string;
  readonly role: Role;
  /** Micro-credits granted at once. */
  readonly initial_balance: number;
}

/** The same name typed on two keyboards is the same name; letter case is left as its owner wrote it. */
function normalized(username: string): string {
  return username.trim().normalize("NFKC");
}

/** A new account with its first grant in the ledger. Throws Conflict when the name is taken (in any case). */
export async function createUser(db: Db, user: NewUser): Promise<UserRow> {
  const username = normalized(user.username);
  const id = user.id ?? newId("user");
  try {
    return await db
      .with("created", (cte) =>
        cte
          .insertInto("users")
          .values({
            id,
            username,
            email: E_MAIL.test(username) ? username : null,
            password_hash: user.password_hash,
            role: user.role,
            token_balance: user.initial_balance,
          })
          .returningAll(),
      )
      .with("granted", (cte) =>
        cte
          .insertInto("ledger_entries")
          .columns(["user_id", "kind", "balance_delta", "held_delta", "note", "idempotency_key"])
          .expression((eb) =>
            eb
              .selectFrom("created")
              .select([
                "id",
                sql.lit("grant" as const).as("kind"),
                "token_balance",
                sql.lit(0).as("held_delta"),
                sql.lit("initial balance").as("note"),
                sql<string>`'grant:' || id || ':initial'`.as("idempotency_key"),
              ])
              .where("token_balance", ">", 0),
          ),
      )
      .selectFrom("created")
      .selectAll()
      .executeTakeFirstOrThrow();
  } catch (error) {
    if (isUniqueViolation(error, "users_username")) {
      throw new AppError("Conflict", "This username is taken.", { hint: "Choose another one, or sign in." });
    }
    throw error;
  }
}

export function findUser(db: Db, id: string): Promise<UserRow | undefined> {
  return db.selectFrom("users").selectAll().where("id", "=", id).executeTakeFirst();
}

/** By name or e-mail address, whatever its letter case. */
export function findUserByName(db: Db, username: string): Promise<UserRow | undefined> {
  return db
    .selectFrom("users")
    .selectAll()
    .where(sql<string>`lower(username)`, "=", sql<string>`lower(${normalized(username)})`)
    .executeTakeFirst();
}

export function findUserByApiKeyHash(db: Db, hash: Buffer): Promise<UserRow | undefined> {
  return db.selectFrom("users").selectAll().where("api_key_hash", "=", hash).executeTakeFirst();
}

export interface UserPage {
  readonly users: UserRow[];
  /** Present when there are more. */
  readonly next_cursor?: string;
}

/** Oldest first. `cursor` as an earlier page gave it. */
export async function listUsers(
  db: Db,
  { cursor, limit }: { cursor?: string | undefined; limit: number },
): Promise<UserPage> {
  // Ids sort by creation, and no two are equal.
  let query = db
    .selectFrom("users")
    .selectAll()
    .orderBy("id")
    .limit(limit + 1);
  if (cursor !== undefined) query = query.where("id", ">", cursor);
  const users = await query.execute();
  const last = users.length > limit ? users[limit - 1] : undefined;
  return last === undefined ? { users } : { users: users.slice(0, limit), next_cursor: last.id };
}

export async function countAdmins(db: Db): Promise<number> {
  const { count } = await db
    .selectFrom("users")
    .select((eb) => eb.fn.countAll<number>().as("count"))
    .where("role", "=", "admin")
    .executeTakeFirstOrThrow();
  return count;
}

/** Throws NotFound, or Conflict when it would leave no admin. */
export function setRole(db: Db, user_id: string, role: Role): Promise<UserRow> {
  return inTransaction(db, async (trx) => {
    if (role !== "admin") await assertAnotherAdmin(trx, user_id);
    const user = await trx
      .updateTable("users")
      .set({ role, updated_at: sql<Date>`now()` })
      .where("id", "=", user_id)
      .returningAll()
      .executeTakeFirst();
    return user ?? notFound();
  });
}

/** Deletes the account with its projects, tasks and ledger. Throws NotFound, or Conflict for the last admin. */
export function deleteUser(db: Db, user_id: string): Promise<void> {
  return inTransaction(db, async (trx) => {
    await assertAnotherAdmin(trx, user_id);
    const { numDeletedRows } = await trx.deleteFrom("users").where("id", "=", user_id).executeTakeFirst();
    if (numDeletedRows === 0n) notFound();
  });
}

/** Holds every admin's row, so that of two who remove each other one comes second and sees it. */
async function assertAnotherAdmin(trx: Db, user_id: string): Promise<void> {
  const admins = await trx
    .selectFrom("users")
    .select("id")
    .where("role", "=", "admin")
    .orderBy("id")
    .forUpdate()
    .execute();
  if (admins.length === 1 && admins[0]?.id === user_id) {
    throw new AppError("Conflict", "This is the last administrator.", {
      hint: "Make another user an administrator first.",
    });
  }
}

/** Store (or with null revoke) the user's one API key, as its SHA-256. Throws NotFound. */
export async function setApiKeyHash(db: Db, user_id: string, hash: Buffer | null): Promise<void> {
  const { numUpdatedRows } = await db
    .updateTable("users")
    .set({ api_key_hash: hash, updated_at: sql<Date>`now()` })
    .where("id", "=", user_id)
    .executeTakeFirst();
  if (numUpdatedRows === 0n) notFound();
}

/** End every access token issued so far; returns the new version. Throws NotFound. */
export async function bumpTokenVersion(db: Db, user_id: string): Promise<number> {
  const row = await db
    .updateTable("users")
    .set((eb) => ({ token_version: eb("token_version", "+", 1), updated_at: sql<Date>`now()` }))
    .where("id", "=", user_id)
    .returning("token_version")
    .executeTakeFirst();
  return (row ?? notFound()).token_version;
}

export function notFound(): never {
  throw new AppError("NotFound", "There is no such user.");
}
