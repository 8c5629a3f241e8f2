import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { usableModels } from "#database/accounts/provider-resolution.ts";
import type { Database } from "#database/open.ts";
import type { Authenticator, Caller } from "#platform/authenticate.ts";
import type { Config } from "#platform/config/config.ts";
import type { Log } from "#platform/log.ts";
import type { Secrets } from "#platform/secrets.ts";
import type { TokenBuckets } from "#platform/token-bucket.ts";
import type { TaskTokens } from "#platform/tokens/index.ts";
import { requireModelCaller } from "./access.ts";
import { ApiError, toApiError } from "./api-error.ts";
import { CHAT_ENDPOINT, chat } from "./chat.ts";
import { LiveCalls } from "./live-calls.ts";
import { RemoteProviders } from "./remote/client.ts";
import { startSweeper } from "./sweeper.ts";

export interface LlmServerDeps {
  database: Pick<Database, "db">;
  config: Pick<Config, "provider" | "billing" | "run" | "instanceId" | "shutdownGraceMs">;
  log: Log;
  /** JWT or API key to caller; task tokens are judged here. */
  authenticate: Authenticator;
  taskTokens: Pick<TaskTokens, "verify">;
  secrets: Secrets;
  /** Requests per user; shared with the other servers of the process. */
  perUser?: TokenBuckets | undefined;
}

/** Calls in flight may end by themselves for this long when the server stops. */
const LONGEST_GRACE_MS = 2000;

/**
 * Add the OpenAI-compatible routes under /v1. Errors there have OpenAI's envelope. Closing the app ends and
 * charges every call in flight; starting releases those a killed process left open.
 */
export async function registerLlmServer(app: FastifyInstance, deps: LlmServerDeps): Promise<void> {
  const sweeper = await startSweeper(deps.database.db, deps.log, deps.config.instanceId);
  await app.register((scope, _options, done) => {
    scope.addHook("onClose", () => sweeper.close());
    addRoutes(scope, deps);
    done();
  });
}

function addRoutes(scope: FastifyInstance, deps: LlmServerDeps): void {
  const { db } = deps.database;
  const { config, log, secrets } = deps;
  const remote = new RemoteProviders(config.provider, log);
  const live = new LiveCalls();
  const callerOf = async (request: FastifyRequest) => {
    const caller = await requireModelCaller(request, { ...deps, db });
    deps.perUser?.takeOrThrow(caller.user_id);
    return caller;
  };
  const modelsOf = async (request: FastifyRequest) => {
    const { user_id } = await callerOf(request);
    const { provider, billing } = config;
    const usable = await usableModels(db, { provider, billing, user_id });
    return usable.map(({ id, source }) => ({ id, object: "model", created: 0, owned_by: source }));
  };

  scope.setErrorHandler(sendApiError);
  scope.addHook("preClose", async () => {
    await live.close(Math.min(LONGEST_GRACE_MS, config.shutdownGraceMs));
    await remote.close();
  });
  // Who calls is asked before the body is read: nobody unknown makes us take in and parse 16 MB.
  const callers = new WeakMap<FastifyRequest, Caller>();
  const onRequest = async (request: FastifyRequest) => void callers.set(request, await callerOf(request));
  scope.post(CHAT_ENDPOINT, { onRequest }, async (request, reply) => {
    const caller = callers.get(request) ?? (await callerOf(request));
    return chat(request, reply, caller, { db, config, secrets, remote, live, log });
  });
  scope.get("/v1/models", async (request) => ({ object: "list", data: await modelsOf(request) }));
  scope.get<{ Params: { "*": string } }>("/v1/models/*", async (request) => {
    const id = request.params["*"];
    const found = (await modelsOf(request)).find((model) => model.id === id);
    if (found !== undefined) return found;
    throw new ApiError(404, `The model "${id}" does not exist.`, { code: "model_not_found", param: "model" });
  });
  scope.all("/v1/*", async (request) => {
    const path = request.url.split("?", 1)[0];
    throw new ApiError(404, `Unknown request URL: ${request.method} ${path}.`, { code: "unknown_url" });
  });
}

function sendApiError(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const known = toApiError(error);
  if (known.status === 500)
    request.log.error({ err: known.options.cause ?? error }, "a model request failed");
  return reply
    .code(known.status)
    .headers(known.headers())
    .type("application/json; charset=utf-8")
    .send(known.envelope());
}
