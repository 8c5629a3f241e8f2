import type { FastifyInstance, FastifyRequest } from "fastify";
import type { UserRow } from "#database";
import { setBalance } from "#database/accounts/balance.ts";
import { createUser, deleteUser, findUser, listUsers, setRole } from "#database/accounts/users.ts";
import { type Budget, setUserBudget, usageOfUser, userBudget, userBudgets } from "#database/ledger/index.ts";
import { parseInput } from "#platform/http/index.ts";
import { randomBase32 } from "#platform/ids.ts";
import { hashPassword } from "#platform/password.ts";
import {
  type AdminUserView,
  AppError,
  createUserSchema,
  listUsersSchema,
  setBalanceSchema,
  setBudgetSchema,
  setRoleSchema,
  userUsageSchema,
} from "#schemas";
import type { AuthDeps } from "../register-auth.ts";

const ID = /^[\w-]{1,64}$/;
const IDEMPOTENCY_KEY = /^[\x21-\x7e]{1,128}$/;

/** `/admin/users*`: for administrators only; each change is in the log with who made it. */
export function registerAdminRoutes(app: FastifyInstance, deps: AuthDeps): void {
  const { db } = deps.database;
  const requireAdmin = (request: FastifyRequest) => deps.requireCaller(request, "admin");

  /** A change takes effect at once here, and is put on record. */
  const changed = (by: string, user_id: string, what: Record<string, unknown>) => {
    deps.authenticator.invalidate(user_id);
    deps.log.info({ by, user_id, ...what }, "account changed by an administrator");
  };

  app.get("/admin/users", async (request) => {
    await requireAdmin(request);
    const { users, next_cursor } = await listUsers(db, parseInput(listUsersSchema, request.query));
    const budgets = await userBudgets(
      db,
      users.map(({ id }) => id),
    );
    const page = { users: users.map((user) => viewOf(user, budgets.get(user.id))) };
    return next_cursor === undefined ? page : { ...page, next_cursor };
  });

  app.post("/admin/users", async (request) => {
    const { user_id: by } = await requireAdmin(request);
    const { username, password, role } = parseInput(createUserSchema, request.body);
    const password_hash = await hashPassword(password);
    const initial_balance = deps.config.billing.initialBalance;
    const user = await createUser(db, { username, password_hash, role, initial_balance });
    changed(by, user.id, { created: role });
    return viewOf(user);
  });

  app.put("/admin/users/:id/balance", async (request) => {
    const { user_id: by } = await requireAdmin(request);
    const { balance_microcredits } = parseInput(setBalanceSchema, request.body);
    const id = idOf(request);
    const idempotency_key = idempotencyKeyOf(request);
    await setBalance(db, id, balance_microcredits, { idempotency_key, note: `set by ${by}` });
    changed(by, id, { balance_microcredits });
    return viewWithBudget(await existing(id));
  });

  app.put("/admin/users/:id/budget", async (request) => {
    const { user_id: by } = await requireAdmin(request);
    const { limit_microcredits: limit, period } = parseInput(setBudgetSchema, request.body);
    const id = idOf(request);
    const budget = await setUserBudget(db, id, { limit, period });
    changed(by, id, { limit, period });
    return viewOf(await existing(id), budget);
  });

  app.put("/admin/users/:id/role", async (request) => {
    const { user_id: by } = await requireAdmin(request);
    const { role } = parseInput(setRoleSchema, request.body);
    const user = await setRole(db, idOf(request), role);
    changed(by, user.id, { role });
    return viewWithBudget(user);
  });

  app.delete("/admin/users/:id", async (request) => {
    const { user_id: by } = await requireAdmin(request);
    const id = idOf(request);
    await deleteUser(db, id);
    changed(by, id, { deleted: true });
    return { deleted: true };
  });

  app.get("/admin/users/:id/usage", async (request) => {
    await requireAdmin(request);
    const { id: user_id } = await existing(idOf(request));
    const { from, to, group_by, time_zone } = parseInput(userUsageSchema, request.query);
    const range = {
      from: from === undefined ? undefined : new Date(from),
      to: to === undefined ? undefined : new Date(to),
    };
    const grouping = group_by === undefined ? undefined : { group_by, time_zone };
    return usageOfUser(db, { user_id, ...range }, grouping);
  });

  async function existing(id: string): Promise<UserRow> {
    const user = await findUser(db, id);
    if (user === undefined) throw noSuchUser();
    return user;
  }

  async function viewWithBudget(user: UserRow): Promise<AdminUserView> {
    return viewOf(user, await userBudget(db, user.id));
  }
}

function viewOf(user: UserRow, budget?: Budget): AdminUserView {
  const { limit = null, period = "month", spent = 0, resets_at = null } = budget ?? {};
  return {
    id: user.id,
    username: user.username,
    role: user.role,
    balance_microcredits: user.token_balance,
    held_microcredits: user.token_held,
    ...(limit === null
      ? {}
      : {
          budget: {
            limit_microcredits: limit,
            period,
            spent_microcredits: spent,
            resets_at: resets_at?.toISOString() ?? null,
          },
        }),
    created_at: user.created_at.toISOString(),
  };
}

/** What cannot be an id (and might hold bytes the database refuses) is nobody's. */
function idOf(request: FastifyRequest): string {
  const { id } = request.params as { id: string };
  if (!ID.test(id)) throw noSuchUser();
  return id;
}

/** `Idempotency-Key` of the request, so that sending it twice counts once; without one each counts. */
function idempotencyKeyOf(request: FastifyRequest): string {
  const key = request.headers["idempotency-key"];
  if (key === undefined) return `once:${randomBase32(26)}`;
  if (typeof key !== "string" || !IDEMPOTENCY_KEY.test(key)) {
    throw new AppError("InvalidParams", "Idempotency-Key: 1 to 128 visible ASCII characters.");
  }
  return `given:${key}`;
}

function noSuchUser(): AppError {
  return new AppError("NotFound", "There is no such user.");
}
