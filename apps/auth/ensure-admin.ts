import type { Database, UserRow } from "#database";
import { oldestAdmin } from "#database/accounts/admins.ts";
import { createUser, findUserByName } from "#database/accounts/users.ts";
import type { Config } from "#platform/config/config.ts";
import { ConfigError } from "#platform/config/read-env.ts";
import { randomBase32 } from "#platform/ids.ts";
import { hashPassword } from "#platform/password.ts";
import { AppError, createUserSchema } from "#schemas";

/** An administrator of this server; `password` only when it was made up now, to be shown once. */
export interface EnsuredAdmin {
  username: string;
  password?: string;
}

/**
 * See to it that somebody can administer this server. With an administrator there already, only a name and
 * password given together, for a name not yet taken, make another one; no password is ever changed.
 * @throws ConfigError when the name or password given cannot be used.
 */
export async function ensureAdmin(
  database: Pick<Database, "db">,
  config: Pick<Config, "admin" | "billing">,
): Promise<EnsuredAdmin> {
  const { username, password: given } = config.admin;
  const known = await findUserByName(database.db, username);
  if (known?.role === "admin") return { username: known.username };
  const admin = await oldestAdmin(database.db);
  if (admin !== undefined && (known !== undefined || given === undefined))
    return { username: admin.username };
  if (known !== undefined) throw nameOfAnother(username);
  const password = given ?? readablePassword();
  checkGiven(username, password);
  const created = await createOrFind(database, username, {
    password_hash: await hashPassword(password),
    initial_balance: config.billing.initialBalance,
  });
  // Another instance was faster: its password is the one that counts.
  if (!created.ours) return { username: created.user.username };
  return given === undefined
    ? { username: created.user.username, password }
    : { username: created.user.username };
}

async function createOrFind(
  database: Pick<Database, "db">,
  username: string,
  account: { password_hash: string; initial_balance: number },
): Promise<{ user: UserRow; ours: boolean }> {
  try {
    return { user: await createUser(database.db, { username, role: "admin", ...account }), ours: true };
  } catch (error) {
    if (!(error instanceof AppError && error.code === "Conflict")) throw error;
    const user = await findUserByName(database.db, username);
    if (user?.role !== "admin") throw nameOfAnother(username);
    return { user, ours: false };
  }
}

function checkGiven(username: string, password: string): void {
  const checked = createUserSchema.safeParse({ username, password, role: "admin" });
  if (checked.success) return;
  const [issue] = checked.error.issues;
  const name = issue?.path[0] === "password" ? "CDS_ADMIN_PASSWORD" : "CDS_ADMIN_USERNAME";
  throw new ConfigError(name, issue?.message ?? "cannot be used");
}

function nameOfAnother(username: string): ConfigError {
  return new ConfigError(
    "CDS_ADMIN_USERNAME",
    `"${username}" is a user who is no administrator; choose another name`,
  );
}

/** 100 random bits in four groups, of letters and digits that are not mistaken for each other. */
function readablePassword(): string {
  return Array.from({ length: 4 }, () => randomBase32(5)).join("-");
}
