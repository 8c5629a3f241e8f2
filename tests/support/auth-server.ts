import type { FastifyInstance } from "fastify";
import { type AuthDeps, registerAuth } from "#apps/auth/index.ts";
import { createAuthenticator } from "#database/accounts/authenticator.ts";
import { createSessions } from "#database/accounts/sessions.ts";
import { createUser } from "#database/accounts/users.ts";
import {
  AccessTokens,
  type Config,
  closeHttpServer,
  createHttpServer,
  createLogger,
  createRequireCaller,
  HealthRegistry,
  hashPassword,
  newId,
  Origins,
  openSecrets,
  portOf,
  readConfig,
  type Secrets,
} from "#platform";
import type { Role, Session } from "#schemas";
import { type TestDatabase, testDatabase } from "./database.ts";

interface Answer {
  status: number;
  headers: Headers;
  // The tests look into answers of every shape.
  body: Record<string, unknown> & {
    error?: { code: string; message: string; hint?: string; issues?: unknown };
  };
}

export interface AuthServer extends AsyncDisposable {
  url: string;
  config: Config;
  test: TestDatabase;
  app: FastifyInstance;
  secrets: Secrets;
  accessTokens: AccessTokens;
  deps: AuthDeps;
  /** Everything logged, as text. */
  log: string[];
  call(
    method: string,
    path: string,
    body?: unknown,
    bearer?: string,
    headers?: Record<string, string>,
  ): Promise<Answer>;
  register(username: string, password?: string): Promise<Session>;
  /** A user of this role, made past the API, signed in. */
  user(username: string, role: Role): Promise<Session>;
}

/** The auth server alone, on a free port, with a database of its own. */
export async function authServer(env: Record<string, string> = {}): Promise<AuthServer> {
  const config = readConfig({ CDS_LOGINS_PER_MINUTE: "100000", ...env });
  const log: string[] = [];
  const logger = createLogger({ level: "info", pretty: false }, { write: (line) => void log.push(line) });
  const test = await testDatabase();
  const { database } = test;
  const secrets = await openSecrets({ masterKey: newId("token").repeat(2), dataDir: config.dataDir });
  const accessTokens = await AccessTokens.open(secrets, config.auth.accessTokenSeconds);
  const authenticator = createAuthenticator({ database, accessTokens });
  const deps: AuthDeps = {
    database,
    config,
    log: logger,
    sessions: createSessions({ database, accessTokens, config }),
    authenticator,
    requireCaller: createRequireCaller({ authenticate: authenticator.authenticate }),
  };
  const app = createHttpServer({
    log: logger,
    origins: new Origins(),
    health: new HealthRegistry(),
    bodyBytes: 64 * 1024,
    trustedProxies: ["127.0.0.1"],
  });
  await registerAuth(app, deps);
  await app.listen({ port: 0, host: "127.0.0.1" });
  const url = `http://127.0.0.1:${portOf(app)}`;
  const call: AuthServer["call"] = (method, path, body, bearer, headers) =>
    ask(`${url}${path}`, { method, body, bearer, headers });
  const session = async (path: string, username: string, password: string) => {
    const { status, body } = await call("POST", path, { username, password });
    if (status !== 200) throw new Error(`${path} ${username}: ${JSON.stringify(body)}`);
    return body as unknown as Session;
  };
  return {
    url,
    config,
    test,
    app,
    secrets,
    accessTokens,
    deps,
    log,
    call,
    register: (username, password = `password of ${username}`) =>
      session("/auth/register", username, password),
    async user(username, role) {
      const password_hash = await hashPassword(`password of ${username}`);
      const initial_balance = config.billing.initialBalance;
      await createUser(database.db, { username, role, password_hash, initial_balance });
      return session("/auth/login", username, `password of ${username}`);
    },
    async [Symbol.asyncDispose]() {
      await closeHttpServer(app, 1000);
      await test[Symbol.asyncDispose]();
    },
  };
}

async function ask(
  url: string,
  options: {
    method: string;
    body: unknown;
    bearer: string | undefined;
    headers: Record<string, string> | undefined;
  },
): Promise<Answer> {
  const headers: Record<string, string> = { ...options.headers };
  if (options.bearer !== undefined) headers.authorization = `Bearer ${options.bearer}`;
  const raw = typeof options.body === "string" || options.body instanceof Uint8Array;
  if (options.body !== undefined) headers["content-type"] ??= "application/json";
  const init: RequestInit = { method: options.method, headers };
  if (options.body !== undefined) init.body = raw ? (options.body as BodyInit) : JSON.stringify(options.body);
  const answer = await fetch(url, init);
  return { status: answer.status, headers: answer.headers, body: (await answer.json()) as Answer["body"] };
}
