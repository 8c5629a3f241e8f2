import type { FastifyInstance, FastifyRequest } from "fastify";
import { z } from "zod";
import type { UserRow } from "#database";
import type { AccountAuthenticator } from "#database/accounts/authenticator.ts";
import { deleteProvider } from "#database/accounts/index.ts";
import type { Sessions } from "#database/accounts/sessions.ts";
import { createUser, findUser } from "#database/accounts/users.ts";
import type { Caller } from "#platform/authenticate.ts";
import { bearerOf, limitBodies, parseInput, requireRole } from "#platform/http/index.ts";
import type { Log } from "#platform/log.ts";
import { hashPassword } from "#platform/password.ts";
import type { Secrets } from "#platform/secrets.ts";
import type { AccessTokens } from "#platform/tokens/index.ts";
import { AppError, credentialsSchema, passwordSchema } from "#schemas";
import type { Api } from "../api.ts";
import { accountHandlers } from "../methods/account.ts";
import { sendPocketbaseError } from "./errors.ts";
import { recordOf, type UserRecord } from "./record.ts";

export interface PocketbaseDeps {
  readonly api: Api;
  readonly secrets: Secrets;
  readonly sessions: Sessions;
  readonly accessTokens: AccessTokens;
  readonly authenticator: AccountAuthenticator;
}

const COLLECTION = "/api/collections/users";

const signInSchema = z.object({ identity: z.string().max(254), password: z.string().max(1024) });
const createSchema = z.object({
  username: z.string().optional(),
  email: z.string().optional(),
  password: z.string(),
  passwordConfirm: z.string(),
});
const updateSchema = z.object({
  /** Write-only: the key of the user's provider; the empty string forgets it. */
  api_key: z.string().max(4096).optional(),
  oldPassword: z.string().max(1024).optional(),
  password: passwordSchema.optional(),
  passwordConfirm: z.string().optional(),
});

/** Accounts in PocketBase's shapes, for its official client (OC-4). Others' records do not exist for a caller. */
export async function registerPocketbase(app: FastifyInstance, deps: PocketbaseDeps): Promise<void> {
  await app.register((scope, _options, done) => {
    scope.setErrorHandler(sendPocketbaseError);
    limitBodies(scope);
    scope.addHook("onSend", async (_request, reply) => {
      reply.header("cache-control", "no-store");
    });
    scope.get("/api/health", async () => ({ code: 200, message: "API is healthy.", data: {} }));
    registerSignIn(scope, deps);
    registerRecords(scope, deps);
    done();
  });
}

function registerSignIn(scope: FastifyInstance, deps: PocketbaseDeps): void {
  const { database } = deps.api;
  scope.get(`${COLLECTION}/auth-methods`, async () => ({
    password: { enabled: true, identityFields: ["username", "email"] },
    oauth2: { enabled: false, providers: [] },
    mfa: { enabled: false, duration: 0 },
    otp: { enabled: false, duration: 0 },
  }));
  scope.post(`${COLLECTION}/auth-with-password`, async (request) => {
    const { identity, password } = parseInput(signInSchema, request.body);
    const user = await deps.sessions
      .checkPassword({ username: identity, password }, request.ip)
      .catch(failedToSignIn);
    return signedIn(deps, user);
  });
  scope.post(`${COLLECTION}/auth-refresh`, async (request) => {
    const caller = await callerOf(deps, request);
    return signedIn(deps, await ownUser(deps, caller, caller.user_id));
  });
  scope.post(`${COLLECTION}/records`, async (request) => {
    if (!deps.api.config.auth.allowRegistration) throw new AppError("Forbidden", "Registration is closed.");
    const { username, email, password, passwordConfirm } = parseInput(createSchema, request.body);
    if (password !== passwordConfirm) throw mismatch();
    if (username !== undefined && email !== undefined && username !== email) throw twoNames();
    const credentials = parseInput(credentialsSchema, { username: username ?? email, password });
    deps.sessions.admitRegistration(request.ip);
    const user = await createUser(database.db, {
      username: credentials.username,
      password_hash: await hashPassword(password),
      role: "developer",
      initial_balance: deps.api.config.billing.initialBalance,
    });
    return recordOf(user);
  });
}

function registerRecords(scope: FastifyInstance, deps: PocketbaseDeps): void {
  scope.get(`${COLLECTION}/records`, async (request) => {
    const caller = await callerOf(deps, request);
    const items = [recordOf(await ownUser(deps, caller, caller.user_id))];
    return { page: 1, perPage: 30, totalItems: 1, totalPages: 1, items };
  });
  scope.get<{ Params: { id: string } }>(`${COLLECTION}/records/:id`, async (request) => {
    const caller = await callerOf(deps, request);
    return recordOf(await ownUser(deps, caller, request.params.id));
  });
  scope.patch<{ Params: { id: string } }>(`${COLLECTION}/records/:id`, async (request) => {
    const caller = await callerOf(deps, request);
    await ownUser(deps, caller, request.params.id);
    const update = parseInput(updateSchema, request.body);
    if (update.api_key !== undefined) await setKey(deps, caller, update.api_key, request);
    if (update.password !== undefined) {
      if (update.password !== update.passwordConfirm) throw mismatch();
      const passwords = { old_password: update.oldPassword ?? "", new_password: update.password };
      await deps.sessions.changePassword(caller.user_id, passwords, request.ip).catch(failedToSignIn);
      deps.authenticator.invalidate(caller.user_id);
    }
    return recordOf(await ownUser(deps, caller, caller.user_id));
  });
}

async function signedIn(deps: PocketbaseDeps, user: UserRow): Promise<{ token: string; record: UserRecord }> {
  const { token } = await deps.accessTokens.issue(user);
  return { token, record: recordOf(user) };
}

/** The client sends its token bare, without the word Bearer. */
async function callerOf(deps: PocketbaseDeps, request: FastifyRequest): Promise<Caller> {
  const { authorization } = request.headers;
  const caller = await deps.api.gate.authenticate(bearerOf(authorization) ?? authorization?.trim());
  deps.api.gate.admit(caller, request.ip);
  return caller;
}

/** @throws AppError NotFound for anybody else's id, as for one that does not exist. */
async function ownUser(deps: PocketbaseDeps, caller: Caller, id: string): Promise<UserRow> {
  const user = id === caller.user_id ? await findUser(deps.api.database.db, id) : undefined;
  if (user === undefined) throw new AppError("NotFound", "The requested resource wasn't found.");
  return user;
}

/** The key goes to the provider the user has, else to the one the server is set to. */
async function setKey(
  deps: PocketbaseDeps,
  caller: Caller,
  api_key: string,
  request: FastifyRequest,
): Promise<void> {
  const { api, secrets } = deps;
  // What provider.set asks for; the handler itself is called past that check.
  requireRole(caller, "developer");
  if (api_key === "") {
    await deleteProvider(api.database.db, caller.user_id);
    return;
  }
  const context = {
    caller,
    database: api.database,
    config: api.config,
    secrets,
    workbench: api.workbench,
    log: request.log as Log,
    signal: request.signal,
  };
  const { base_url, models } = await accountHandlers["provider.get"](context, {});
  await accountHandlers["provider.set"](context, { base_url, api_key, models });
}

function failedToSignIn(error: unknown): never {
  if (error instanceof AppError && error.code === "Unauthenticated") {
    throw new AppError("InvalidRequest", "Failed to authenticate.");
  }
  throw error;
}

/** One name is all an account has here; storing only one of two would be a lie. */
function twoNames(): AppError {
  const message = "An account has one name: send the e-mail address as the user name too, or leave one out.";
  return new AppError("InvalidParams", message, { issues: [{ path: "email", message }] });
}

function mismatch(): AppError {
  const message = "Values don't match.";
  return new AppError("InvalidParams", message, { issues: [{ path: "passwordConfirm", message }] });
}
