import type { FastifyInstance } from "fastify";
import { WebSocket } from "ws";
import { type Api, type ApiDeps, createApi, registerApi, Workbench } from "#apps/api/index.ts";
import { createAuthenticator } from "#database/accounts/authenticator.ts";
import { createUser } from "#database/accounts/users.ts";
import { EventFeed } from "#database/events/index.ts";
import { createProject } from "#database/projects/index.ts";
import { type ClaimedTask, claimTask } from "#database/queue/index.ts";
import {
  AccessTokens,
  type Config,
  closeHttpServer,
  createHttpServer,
  createLogger,
  HealthRegistry,
  newId,
  Origins,
  openSecrets,
  portOf,
  readConfig,
  type Secrets,
  TaskTokens,
  TokenBuckets,
} from "#platform";
import { openForTest } from "#sandbox/testing/harness.ts";
import type { Role } from "#schemas";
import { type Client, createClient } from "#schemas/client/index.ts";
import { type TestDatabase, testDatabase } from "./database.ts";

export interface ApiUser {
  id: string;
  username: string;
  /** An access token. */
  token: string;
  client: Client;
}

interface RpcAnswer {
  status: number;
  headers: Headers;
  text: string;
  // The tests look into answers of every shape.
  // biome-ignore lint/suspicious/noExplicitAny: see above
  body: any;
}

export interface ApiServer extends AsyncDisposable {
  url: string;
  app: FastifyInstance;
  api: Api;
  config: Config;
  test: TestDatabase;
  secrets: Secrets;
  accessTokens: AccessTokens;
  taskTokens: TaskTokens;
  feed: EventFeed;
  /** Everything logged, as text. */
  log: string[];
  invalidate(user_id: string): void;
  user(username?: string, role?: Role, balance?: number): Promise<ApiUser>;
  /** POST /rpc with a body as it is: text, bytes, or anything to be made JSON. */
  post(body: unknown, token?: string, headers?: Record<string, string>): Promise<RpcAnswer>;
  project(user: ApiUser): Promise<string>;
  /** A task of the user's, through the API, for the scripted model. */
  dispatch(user: ApiUser, project_id?: string): Promise<string>;
  /** Take the next task as a worker does. */
  claim(): Promise<ClaimedTask>;
}

const API_TEST_ENV: Readonly<Record<string, string>> = {
  CDS_RATE_LIMIT_SECONDS: "0",
  CDS_REQUESTS_PER_IP: "100000",
  CDS_REQUESTS_PER_IP_BURST: "100000",
  CDS_REQUESTS_PER_USER: "100000",
  CDS_REQUESTS_PER_USER_BURST: "100000",
  CDS_MAX_ACTIVE_PER_USER: "20",
  CDS_VM_POOL: "0",
};

/** The API alone, on a free port, with a database of its own. */
export async function apiServer(
  env: Record<string, string> = {},
  timing: NonNullable<ApiDeps["timing"]> = {},
): Promise<ApiServer> {
  const opened = await openForTest();
  const config = readConfig({ ...API_TEST_ENV, CDS_DATA_DIR: opened.dataDir, ...env });
  const log: string[] = [];
  const logger = createLogger({ level: "info", pretty: false }, { write: (line) => void log.push(line) });
  const test = await testDatabase();
  const { database } = test;
  const secrets = await openSecrets({ masterKey: newId("token").repeat(2), dataDir: config.dataDir });
  const accessTokens = await AccessTokens.open(secrets, config.auth.accessTokenSeconds);
  const { authenticate, invalidate } = createAuthenticator({ database, accessTokens });
  const feed = await EventFeed.open(database, logger);
  const origins = new Origins(config.allowedOrigins);
  const { requestsPerIp, requestsPerIpBurst, requestsPerUser, requestsPerUserBurst } = config.limits;
  const perIp = new TokenBuckets({ perSecond: requestsPerIp, burst: requestsPerIpBurst });
  const perUser = new TokenBuckets({ perSecond: requestsPerUser, burst: requestsPerUserBurst });
  const workbench = await Workbench.open({ database, config, sandboxes: opened.sandboxes, log: logger });
  const api = createApi({
    ...{ database, config, secrets, authenticate, feed, workbench, origins, perIp, perUser, timing },
  });
  const app = createHttpServer({
    log: logger,
    origins,
    health: new HealthRegistry(),
    bodyBytes: config.limits.bodyBytes,
    perIp,
  });
  await registerApi(app, api);
  await app.listen({ port: 0, host: "127.0.0.1" });
  const url = `http://127.0.0.1:${portOf(app)}`;
  const project: ApiServer["project"] = async ({ id }) => {
    const made = await createProject(database, { owner_id: id, name: "Test", quota: config.quota });
    return made.id;
  };
  return {
    url,
    app,
    api,
    config,
    test,
    secrets,
    accessTokens,
    taskTokens: await TaskTokens.open(secrets),
    feed,
    log,
    invalidate,
    project,
    async user(username = newId("user"), role = "developer", initial_balance = 10_000_000) {
      const made = await createUser(database.db, { username, role, password_hash: "none", initial_balance });
      const { token } = await accessTokens.issue(made);
      return { id: made.id, username, token, client: createClient({ baseUrl: url, token }) };
    },
    async post(body, token, headers = {}) {
      const raw = typeof body === "string" || body instanceof Uint8Array;
      const answer = await fetch(`${url}/rpc`, {
        method: "POST",
        headers: {
          "content-type": "application/json",
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          ...headers,
        },
        body: raw ? (body as BodyInit) : JSON.stringify(body),
      });
      const text = await answer.text();
      return {
        status: answer.status,
        headers: answer.headers,
        text,
        body: text === "" ? undefined : JSON.parse(text),
      };
    },
    async dispatch(user, project_id) {
      const { task_id } = await user.client.call("agent.dispatch", {
        agent: "CodeAgent",
        project_id: project_id ?? (await project(user)),
        prompt: "Say hello.",
        model: "demo",
      });
      return task_id;
    },
    async claim() {
      const claim = { worker_id: "w", capacity: 100, per_user: 20, seconds_between: 0, lease_ms: 60_000 };
      const task = await claimTask(database.db, claim);
      if (task === null) throw new Error("there is no task to claim");
      return task;
    },
    async [Symbol.asyncDispose]() {
      await closeHttpServer(app, 1000);
      await feed.close();
      await workbench.close();
      await opened[Symbol.asyncDispose]();
      await test[Symbol.asyncDispose]();
    },
  };
}

export interface TestSocket {
  ws: WebSocket;
  /** Every message received so far, parsed. */
  // biome-ignore lint/suspicious/noExplicitAny: answers of every shape
  messages: any[];
  closed: Promise<{ code: number; reason: string }>;
  send(message: unknown): void;
  /** Send a request and wait for its answer. */
  // biome-ignore lint/suspicious/noExplicitAny: answers of every shape
  call(method: string, params: unknown): Promise<any>;
  /** Wait until a received message fits. */
  // biome-ignore lint/suspicious/noExplicitAny: answers of every shape
  until(fits: (message: any) => boolean, timeoutMs?: number): Promise<any>;
}

/** A WebSocket to `/ws`; rejects with the status when the upgrade is refused. */
export function openSocket(
  url: string,
  options: { token?: string; protocols?: string[]; headers?: Record<string, string>; path?: string } = {},
): Promise<TestSocket> {
  const authorization = options.token === undefined ? {} : { authorization: `Bearer ${options.token}` };
  const ws = new WebSocket(`${url.replace("http", "ws")}${options.path ?? "/ws"}`, options.protocols ?? [], {
    headers: { ...authorization, ...options.headers },
  });
  const messages: TestSocket["messages"] = [];
  const waiting = new Set<() => void>();
  let nextId = 1;
  ws.on("message", (data) => {
    messages.push(JSON.parse(String(data)));
    for (const check of waiting) check();
  });
  const closed = new Promise<{ code: number; reason: string }>((resolve) => {
    ws.once("close", (code, reason) => resolve({ code, reason: String(reason) }));
  });
  const until: TestSocket["until"] = (fits, timeoutMs = 30_000) => {
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const check = () => {
      const found = messages.find(fits);
      if (found !== undefined) resolve(found);
    };
    const timer = setTimeout(
      () => reject(new Error(`no such message: ${JSON.stringify(messages)}`)),
      timeoutMs,
    );
    waiting.add(check);
    check();
    return promise.finally(() => {
      clearTimeout(timer);
      waiting.delete(check);
    });
  };
  const socket: TestSocket = {
    ws,
    messages,
    closed,
    until,
    send: (message) => ws.send(typeof message === "string" ? message : JSON.stringify(message)),
    call(method, params) {
      const id = `call-${nextId++}`;
      socket.send({ jsonrpc: "2.0", method, params, id });
      return until((message) => message.id === id);
    },
  };
  return new Promise((resolve, reject) => {
    ws.once("open", () => resolve(socket));
    ws.once("error", reject);
    ws.once("unexpected-response", (_request, response) => {
      reject(
        Object.assign(new Error(`refused with ${response.statusCode}`), { status: response.statusCode }),
      );
    });
  });
}
