import { resolveCall } from "#database/accounts/provider-resolution.ts";
import type { Caller } from "#platform/authenticate.ts";
import { ApiError, ClientGone, toApiError } from "../api-error.ts";
import { type Observed, observeCall } from "../metrics.ts";
import type { ModelRequest } from "../requests/request.ts";
import type { LlmServer } from "../server.ts";
import { openSource } from "../sources/open-source.ts";
import type { Answer, Source } from "../sources/source.ts";
import { Charge } from "./charge.ts";
import type { Dialect } from "./dialect.ts";
import { BrokenAnswer, broken, parseWhole, pump } from "./pump.ts";
import type { Sink } from "./sink.ts";
import { Tally, type Usage } from "./tally.ts";

/** No call lasts longer than this, whatever it does. */
const LONGEST_CALL_MS = 15 * 60_000;
/** A client that leaves after the last word: the provider's figures are still worth this much waiting. */
const USAGE_LINGER_MS = 1000;
const NOTHING: Usage = { input_tokens: 0, output_tokens: 0, cached_tokens: 0, counted_by: "provider" };

export interface CallOptions {
  request: ModelRequest;
  /** The route as it is recorded: `/v1/chat/completions`. */
  endpoint: string;
  caller: Caller;
  dialect: Dialect;
  sink: Sink;
}

/** One call from the source to the settled ledger. */
interface Call extends CallOptions {
  charge: Charge;
  source: Source;
  answer: Answer;
  tally: Tally;
  abort: AbortController;
  /** What was used, for metrics and limits. */
  used: (usage: Usage) => void;
}

/**
 * Answer one request: hold, ask whoever answers, stream, settle.
 * @returns the text of a whole answer; undefined when it was streamed into the sink, which is ended then.
 * @throws AppError or ApiError as long as nothing was sent; later failures travel in the stream.
 */
export async function runCall(options: CallOptions, llm: LlmServer): Promise<string | undefined> {
  const { request, caller } = options;
  const { user_id, task } = caller;
  const { config, log } = llm;
  const { provider, billing } = config;
  const resolving = { secrets: llm.secrets, provider, billing, user_id, model: request.model };
  const { route, price } = await resolveCall(llm.db, resolving);
  return llm.live.run(async (abort) => {
    const tally = new Tally();
    using observed = observeCall({ ...options, source: route.source, listed: provider.models });
    using _watch = watchReader(options.sink, abort, tally);
    using source = await openSource({ request, route, user_id, signal: abort.signal }, llm);
    await using charge = await Charge.open({
      ...{ db: llm.db, log, unclosed: llm.unclosed, user_id, task, instance_id: config.instanceId, price },
      ...{ model: request.model, inputTokens: source.inputTokens },
      ...{ maxTokens: request.maxTokens, choices: request.choices },
    });
    const started = performance.now();
    const { call_id } = charge;
    try {
      // A reader that left meanwhile gets nothing, and pays nothing.
      abort.signal.throwIfAborted();
      using answer = await source.begin({ maxTokens: charge.maxTokens, abort });
      const call = { ...options, charge, source, answer, tally, abort, used: meter(observed, caller, llm) };
      return await (request.stream ? streamed(call, observed) : whole(call, observed));
    } finally {
      const ms = Math.round(performance.now() - started);
      const { complete } = tally;
      log.info({ call_id, user_id, model: request.model, source: route.source, ms, complete }, "model call");
    }
  });
}

function meter(observed: Observed, caller: Caller, llm: LlmServer): (usage: Usage) => void {
  return (usage) => {
    observed.used(usage);
    llm.limits.used(caller, usage.input_tokens + usage.output_tokens);
  };
}

async function streamed(call: Call, observed: Observed): Promise<undefined> {
  const { request, answer, tally, sink, dialect } = call;
  const maxTokens = call.charge.maxTokens * request.choices;
  let failure: ApiError | undefined;
  try {
    await pump({ answer, tally, out: sink, dialect, maxTokens });
  } catch (error) {
    failure = failureOf(error, call);
  }
  const usage = await close(call, failure);
  if (failure !== undefined && !sink.begun) throw failure;
  await sink.send(failure === undefined ? dialect.end(usage) : dialect.fail(failure));
  sink.end(failure);
  if (failure === undefined) observed.finished();
}

async function whole(call: Call, observed: Observed): Promise<string> {
  const { answer, tally, dialect } = call;
  let failure: ApiError | undefined;
  let text = "";
  let event: Record<string, unknown> = {};
  try {
    text = await answer.text();
    event = parseWhole(text, call.request, answer);
    tally.take(event);
  } catch (error) {
    failure = failureOf(error, call);
  }
  const usage = await close(call, failure);
  if (failure !== undefined) throw failure;
  observed.finished();
  return answer.redactor.quick(dialect.whole(event, text, usage));
}

/** Charge for what came, or give the hold back when nothing did; tell the breaker how it went. */
async function close(call: Call, failure: ApiError | undefined): Promise<Usage> {
  const { tally, charge, answer, source, endpoint } = call;
  if (failure === undefined) answer.report(true);
  else if (failure instanceof BrokenAnswer) answer.report(false);
  const counted = answer.used?.();
  // Part of a whole answer is none: what was generated for it is paid by a client that left, not by one we failed.
  const lost = failure !== undefined && !call.request.stream && !(failure instanceof ClientGone);
  if (lost || (counted === undefined && !tally.started)) {
    await charge.release();
    return NOTHING;
  }
  const usage = counted ?? (await tally.usage(() => source.countInput()));
  await charge.settle(usage, endpoint);
  call.used(usage);
  return usage;
}

/** Why an answer ended; undefined when all that matters had come by then. */
function failureOf(error: unknown, { tally, abort }: Call): ApiError | undefined {
  const aborted = abort.signal.aborted;
  if (error instanceof ApiError && !aborted) return error;
  if (tally.complete) return undefined;
  if (aborted) return toApiError(abort.signal.reason);
  return broken("The connection to the provider broke.", "provider_incomplete", error);
}

/** Ends the call when its reader leaves, or when it lasts too long. */
function watchReader(sink: Sink, abort: AbortController, tally: Tally): Disposable {
  let linger: NodeJS.Timeout | undefined;
  const leave = () => abort.abort(new ClientGone());
  const tooLong = new ApiError(504, "The call took too long.", { code: "timeout" });
  const timer = setTimeout(() => abort.abort(tooLong), LONGEST_CALL_MS);
  timer.unref();
  const gone = sink.onGone(() => {
    if (tally.finished && !tally.hasUsage) linger = setTimeout(leave, USAGE_LINGER_MS);
    else leave();
  });
  return {
    [Symbol.dispose]() {
      clearTimeout(timer);
      clearTimeout(linger);
      gone[Symbol.dispose]();
    },
  };
}
