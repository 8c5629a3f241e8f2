import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { usableModels } from "#database/accounts/provider-resolution.ts";
import type { Caller } from "#platform/authenticate.ts";
import { createRequireCaller } from "#platform/http/index.ts";
import { requireModelCaller } from "./access.ts";
import { registerModelAdmin } from "./admin/index.ts";
import { ApiError } from "./api-error.ts";
import { ReplyStream } from "./calls/reply-stream.ts";
import { runCall } from "./calls/run-call.ts";
import { ENDPOINTS } from "./endpoints/index.ts";
import { sendApiError } from "./send-api-error.ts";
import type { LlmServer } from "./server.ts";
import { registerStreamSocket } from "./stream/index.ts";

export { createLlmServer, type LlmServer } from "./server.ts";

/**
 * Add the OpenAI-compatible routes under /v1, where errors have OpenAI's envelope, and the administration of local
 * models. Closing the app ends and charges every call in flight.
 */
export async function registerLlmServer(app: FastifyInstance, llm: LlmServer): Promise<void> {
  await registerStreamSocket(app, llm);
  await app.register((scope, _options, done) => {
    scope.addHook("preClose", () => llm.close());
    addModelRoutes(scope, llm);
    done();
  });
  const requireCaller = createRequireCaller(llm);
  registerModelAdmin(app, {
    models: llm.models,
    requireCaller,
    log: llm.log,
    activeCalls: () => llm.live.size,
  });
}

function addModelRoutes(scope: FastifyInstance, llm: LlmServer): void {
  const { db, config } = llm;
  const callerOf = async (request: FastifyRequest) => {
    const caller = await requireModelCaller(request, llm);
    llm.perUser?.takeOrThrow(caller.user_id);
    return caller;
  };
  scope.setErrorHandler(sendApiError);
  // Who calls is asked before the body is read: nobody unknown makes us take in and parse 16 MB.
  const callers = new WeakMap<FastifyRequest, Caller>();
  const onRequest = async (request: FastifyRequest, reply: FastifyReply) => {
    const caller = await callerOf(request);
    llm.limits.admit(caller);
    reply.headers(llm.limits.headers(caller));
    callers.set(request, caller);
  };
  for (const { path, open } of ENDPOINTS) {
    scope.post(path, { onRequest }, async (request, reply) => {
      const caller = callers.get(request) ?? (await callerOf(request));
      const sink = new ReplyStream(reply, config.provider.idleTimeoutMs);
      const asked = open(request.body, config.run.maxOutputTokens);
      const text = await runCall({ ...asked, endpoint: path, caller, sink }, llm);
      return text === undefined ? reply : reply.type("application/json; charset=utf-8").send(text);
    });
  }
  const modelsOf = async (request: FastifyRequest) => {
    const { user_id } = await callerOf(request);
    const usable = await usableModels(db, { provider: config.provider, billing: config.billing, user_id });
    return usable.map(({ id, source }) => ({ id, object: "model", created: 0, owned_by: source }));
  };
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
