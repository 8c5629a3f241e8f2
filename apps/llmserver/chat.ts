import type { FastifyReply, FastifyRequest } from "fastify";
import { type ProviderRoute, resolveCall } from "#database/accounts/provider-resolution.ts";
import type { Db } from "#database/schema.ts";
import type { Caller } from "#platform/authenticate.ts";
import type { Config } from "#platform/config/config.ts";
import { isObject, parseForeignJson } from "#platform/json.ts";
import type { Log } from "#platform/log.ts";
import type { Secrets } from "#platform/secrets.ts";
import { ApiError, ClientGone, toApiError } from "./api-error.ts";
import { Charge } from "./charge.ts";
import { type ChatRequest, parseChatRequest, upstreamBody, withServerKey } from "./chat-request.ts";
import { demoSource } from "./demo/source.ts";
import type { LiveCalls } from "./live-calls.ts";
import { BrokenAnswer, broken, pump, reportedError } from "./pump.ts";
import type { RemoteProviders } from "./remote/client.ts";
import { ReplyStream } from "./reply-stream.ts";
import type { Answer, Source } from "./source.ts";
import { Tally } from "./tally.ts";
import { countRequest } from "./tokenizer.ts";

export const CHAT_ENDPOINT = "/v1/chat/completions";

/** No call lasts longer than this, whatever it does. */
const LONGEST_CALL_MS = 15 * 60_000;
/** A client that leaves after the last word: the provider's figures are still worth this much waiting. */
const USAGE_LINGER_MS = 1000;

export interface ChatDeps {
  db: Db;
  config: Pick<Config, "provider" | "billing" | "run" | "instanceId">;
  secrets: Secrets;
  remote: RemoteProviders;
  live: LiveCalls;
  log: Log;
}

/** One call from the request to the settled ledger. */
interface Call {
  request: ChatRequest;
  charge: Charge;
  answer: Answer;
  tally: Tally;
  abort: AbortController;
}

/**
 * Answer a chat completion: hold, ask the provider, stream, settle.
 * @throws AppError or ApiError as long as nothing was sent; later failures travel in the stream.
 */
export async function chat(http: FastifyRequest, reply: FastifyReply, caller: Caller, deps: ChatDeps) {
  const { db, config } = deps;
  const asked = parseChatRequest(http.body, config.run.maxOutputTokens);
  const { user_id, task } = caller;
  const { provider, billing } = config;
  const { route, price } = await resolveCall(db, {
    secrets: deps.secrets,
    provider,
    billing,
    user_id,
    model: asked.model,
  });
  if (route.source === "demo" && asked.choices > 1) {
    throw new ApiError(400, "The demo model gives one choice only.", {
      param: "n",
      code: "unsupported_value",
    });
  }
  return deps.live.run(async (abort) => {
    const tally = new Tally();
    using _watch = watchClient(reply, abort, tally);
    const options = {
      db,
      log: deps.log,
      user_id,
      task,
      instance_id: config.instanceId,
      price,
      request: asked,
    };
    await using charge = await Charge.open(options);
    const request = { ...asked, maxTokens: charge.maxTokens };
    const started = performance.now();
    try {
      using answer = await sourceOf(route, deps)({ request, user_id, abort });
      const call = { request, charge, answer, tally, abort };
      return await (asked.stream ? streamed(call, reply, deps) : whole(call, reply));
    } finally {
      const ms = Math.round(performance.now() - started);
      const { call_id } = charge;
      const { complete } = tally;
      deps.log.info(
        { call_id, user_id, model: asked.model, source: route.source, ms, complete },
        "model call",
      );
    }
  });
}

async function streamed(call: Call, reply: FastifyReply, deps: ChatDeps): Promise<FastifyReply> {
  const { request, answer, tally } = call;
  const out = new ReplyStream(reply, deps.config.provider.idleTimeoutMs);
  const maxTokens = request.maxTokens * request.choices;
  let failure: ApiError | undefined;
  try {
    await pump({ answer, tally, out, wantsUsage: request.wantsUsage, maxTokens });
  } catch (error) {
    failure = failureOf(error, call);
  }
  await close(call, failure);
  if (failure !== undefined && !out.begun) throw failure;
  // An error ends the stream without [DONE]: a broken answer must not look like a whole one.
  await out.write(`data: ${failure === undefined ? "[DONE]" : JSON.stringify(failure.envelope())}\n\n`);
  out.end();
  return reply;
}

async function whole(call: Call, reply: FastifyReply): Promise<FastifyReply> {
  const { answer, tally } = call;
  let failure: ApiError | undefined;
  let text = "";
  try {
    text = await answer.text();
    tally.take(parseWhole(text, answer));
  } catch (error) {
    failure = failureOf(error, call);
  }
  await close(call, failure);
  if (failure !== undefined) throw failure;
  return reply.type("application/json; charset=utf-8").send(answer.redactor.quick(text));
}

function parseWhole(text: string, answer: Answer): Record<string, unknown> {
  let event: unknown;
  try {
    event = parseForeignJson(text);
  } catch {
    throw broken("The provider's answer is not valid JSON.", "provider_invalid_answer");
  }
  if (isObject(event) && Array.isArray(event.choices)) return event;
  if (isObject(event) && event.error !== undefined) throw reportedError(event, answer.redactor);
  throw broken("The provider's answer is no chat completion.", "provider_invalid_answer");
}

/** Charge for what came, or give the hold back when nothing did; tell the breaker how it went. */
async function close({ tally, charge, answer, request }: Call, failure: ApiError | undefined) {
  if (failure === undefined) answer.report(true);
  else if (failure instanceof BrokenAnswer) answer.report(false);
  if (!tally.started) return charge.release();
  await charge.settle(await tally.usage(() => countRequest(request.body)), CHAT_ENDPOINT);
}

/** Why a stream ended; undefined when all that matters had come by then. */
function failureOf(error: unknown, { tally, abort }: Call): ApiError | undefined {
  const aborted = abort.signal.aborted;
  if (error instanceof ApiError && !aborted) return error;
  if (tally.complete) return undefined;
  if (aborted) return toApiError(abort.signal.reason);
  return broken("The connection to the provider broke.", "provider_incomplete", error);
}

function sourceOf(route: ProviderRoute, deps: ChatDeps): Source {
  if (route.source === "demo") return demoSource;
  const { base_url, api_key, source } = route;
  return ({ request, user_id, abort }) =>
    deps.remote.post({
      base_url,
      trusted: source === "server",
      api_key,
      user_id,
      abort,
      stream: request.stream,
      body: upstreamBody(source === "server" ? withServerKey(request) : request, base_url),
    });
}

/** Ends the call when its client leaves, or when it lasts too long. */
function watchClient(reply: FastifyReply, abort: AbortController, tally: Tally): Disposable {
  const { raw } = reply;
  let linger: NodeJS.Timeout | undefined;
  const onClose = () => {
    if (raw.writableFinished) return;
    const leave = () => abort.abort(new ClientGone());
    if (tally.finished && !tally.hasUsage) linger = setTimeout(leave, USAGE_LINGER_MS);
    else leave();
  };
  const tooLong = new ApiError(504, "The call took too long.", { code: "timeout" });
  const timer = setTimeout(() => abort.abort(tooLong), LONGEST_CALL_MS);
  timer.unref();
  raw.on("close", onClose);
  if (raw.destroyed) onClose();
  return {
    [Symbol.dispose]() {
      clearTimeout(timer);
      clearTimeout(linger);
      raw.off("close", onClose);
    },
  };
}
