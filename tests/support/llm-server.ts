import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import OpenAI from "openai";
import { createLlmServer, type LlmServer, registerLlmServer } from "#apps/llmserver/index.ts";
import {
  auditLedger,
  balanceOf,
  createAuthenticator,
  createUser,
  type Db,
  setApiKeyHash,
  setProvider,
} from "#database";
import { providerContext } from "#database/accounts/provider-resolution.ts";
import type { Database } from "#database/open.ts";
import {
  AccessTokens,
  type Config,
  closeHttpServer,
  createHttpServer,
  createLogger,
  HealthRegistry,
  hashToken,
  newApiKey,
  newId,
  Origins,
  openSecrets,
  portOf,
  readConfig,
  type Secrets,
  TaskTokens,
  TokenBuckets,
} from "#platform";
import { registerMetrics } from "#platform/metrics.ts";
import type { Role } from "#schemas";
import { testDatabase } from "./database.ts";

export interface LlmUser {
  user_id: string;
  api_key: string;
  client: OpenAI;
}

interface UserOptions {
  balance?: number;
  role?: Role;
  provider?: { base_url: string; api_key: string; models?: string[] };
}

export interface TestLlmServer extends AsyncDisposable {
  url: string;
  db: Db;
  database: Database;
  config: Config;
  secrets: Secrets;
  taskTokens: TaskTokens;
  accessTokens: AccessTokens;
  /** Everything that was logged, at every level. */
  logs: string[];
  user(options?: UserOptions): Promise<LlmUser>;
  client(bearer: string): OpenAI;
  /** Waits until no call is open, then answers what the user has and what was used. */
  account(user_id: string): Promise<Account>;
  llm: LlmServer;
  stop(graceMs?: number): Promise<void>;
}

interface UsedRow {
  input_tokens: number;
  output_tokens: number;
  cached_tokens: number;
  cost_microcredits: number;
  counted_by: "provider" | "tokenizer" | "model";
}

interface Account {
  balance: number;
  held: number;
  used: UsedRow[];
}

/** The LLM server on a free port, over a database of its own; nothing of it replaced. */
export async function startLlmServer(
  env: Record<string, string> = {},
  /** What an earlier process left in the database. */
  before: (db: Db) => Promise<void> = async () => undefined,
): Promise<TestLlmServer> {
  const dataDir = await mkdtemp(join(tmpdir(), "cds-llm-"));
  const config = readConfig({ CDS_DATA_DIR: dataDir, LOG_LEVEL: "trace", ...env });
  const logs: string[] = [];
  const log = createLogger(
    { level: config.log.level, pretty: false },
    { write: (line: string) => void logs.push(line) },
  );
  const test = await testDatabase();
  const { database } = test;
  const { db } = database;
  await before(db);
  const secrets = await openSecrets({ dataDir });
  const [accessTokens, taskTokens] = await Promise.all([
    AccessTokens.open(secrets, 600),
    TaskTokens.open(secrets),
  ]);
  const { authenticate } = createAuthenticator({ database, accessTokens });
  const origins = new Origins();
  const app = createHttpServer({
    log,
    origins,
    health: new HealthRegistry(),
    bodyBytes: config.limits.bodyBytes,
  });
  const { requestsPerUser: perSecond, requestsPerUserBurst: burst } = config.limits;
  const perUser = new TokenBuckets({ perSecond, burst });
  const llm = await createLlmServer({
    ...{ database, config, log, authenticate, taskTokens, secrets, origins, perUser },
  });
  registerMetrics(app, { token: config.metricsToken });
  await registerLlmServer(app, llm);
  await app.listen({ host: "127.0.0.1", port: 0 });
  const url = `http://127.0.0.1:${portOf(app)}/v1`;
  const client = (bearer: string) => new OpenAI({ apiKey: bearer, baseURL: url, maxRetries: 0 });
  let stopped: Promise<void> | undefined;
  const stop = (graceMs = 2000) => {
    stopped ??= closeHttpServer(app, graceMs);
    return stopped;
  };
  return {
    url,
    db,
    database,
    config,
    secrets,
    taskTokens,
    accessTokens,
    logs,
    llm,
    client,
    stop,
    user: (options = {}) => addLlmUser(db, secrets, client, options),
    account: (user_id) => accountOf(db, user_id),
    async [Symbol.asyncDispose]() {
      await stop();
      await test[Symbol.asyncDispose]();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}

async function addLlmUser(
  db: Db,
  secrets: Secrets,
  client: (bearer: string) => OpenAI,
  { balance = 10_000_000, role = "developer", provider }: UserOptions,
): Promise<LlmUser> {
  const user_id = newId("user");
  const username = `u${randomBytes(6).toString("hex")}`;
  await createUser(db, { id: user_id, username, password_hash: "-", role, initial_balance: balance });
  const api_key = newApiKey();
  await setApiKeyHash(db, user_id, hashToken(api_key));
  if (provider !== undefined) {
    const { base_url, models = [] } = provider;
    const api_key_encrypted = secrets.seal(provider.api_key, providerContext(user_id, base_url));
    await setProvider(db, { user_id, base_url, api_key_encrypted, models });
  }
  return { user_id, api_key, client: client(api_key) };
}

async function accountOf(db: Db, user_id: string): Promise<Account> {
  const deadline = Date.now() + 10_000;
  for (;;) {
    const open = await db
      .selectFrom("llm_calls")
      .select("id")
      .where("user_id", "=", user_id)
      .where("state", "=", "open")
      .execute();
    if (open.length === 0) break;
    if (Date.now() > deadline) throw new Error(`${open.length} calls are still open`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  const { users_off } = await auditLedger(db);
  if (users_off.length > 0) throw new Error(`the ledger is off: ${JSON.stringify(users_off)}`);
  const { balance_microcredits, held_microcredits } = await balanceOf(db, user_id);
  const used = await db
    .selectFrom("tokens_used")
    .select(["input_tokens", "output_tokens", "cached_tokens", "cost_microcredits", "counted_by"])
    .where("user_id", "=", user_id)
    .orderBy("created_at")
    .execute();
  return { balance: balance_microcredits, held: held_microcredits, used };
}

/** Everything a stream gives. */
export async function collect<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of stream) items.push(item);
  return items;
}
