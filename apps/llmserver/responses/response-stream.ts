import type { Frame } from "../calls/sink.ts";
import { Answer } from "./answer.ts";
import type { ResponseEventType } from "./emit.ts";
import type { ResponsesRequest } from "./request.ts";
import {
  errorObject,
  type ResponseFailure,
  type ResponseMeta,
  type ResponseState,
  type ResponseUsage,
  responseObject,
  usageObject,
} from "./response-object.ts";

type Json = Record<string, unknown>;

/** Tells a chat completion as the events of a response, chunk by chunk. */
export class ResponseStream {
  readonly #request: ResponsesRequest;
  readonly #meta: ResponseMeta;
  readonly #answer: Answer;
  #sequence = 0;
  #frames: Frame[] = [];
  #ended = false;

  constructor(request: ResponsesRequest, meta: ResponseMeta) {
    this.#request = request;
    this.#meta = meta;
    this.#answer = new Answer(request, meta.response_id, (type, fields) => this.#emit(type, fields));
  }

  /** The events before the first of the answer. */
  start(): Frame[] {
    const response = this.#response("in_progress");
    this.#emit("response.created", { response });
    this.#emit("response.in_progress", { response });
    return this.#take();
  }

  /** The events of one `chat.completion.chunk`; what it has wrong is left out. Never throws. */
  event(chunk: Record<string, unknown>): Frame[] {
    if (!this.#ended) this.#answer.take(chunk);
    return this.#take();
  }

  /** The last events of an answer that ended as it should, cut off or not. */
  end(usage: ResponseUsage): Frame[] {
    if (this.#ended) return [];
    this.#ended = true;
    const reason = this.#answer.close();
    const response = closedResponse(this.#request, this.#answer, this.#meta, { reason, usage });
    this.#emit(reason === undefined ? "response.completed" : "response.incomplete", { response });
    return this.#take();
  }

  /** The last events of an answer that broke. */
  fail(error: ResponseFailure): Frame[] {
    if (this.#ended) return [];
    this.#ended = true;
    this.#answer.abandon();
    const response = this.#response("failed", errorObject(error));
    this.#emit("response.failed", { response });
    // OpenAI documents the fields flat and sends them nested: clients read the one or the other.
    const { message, type, code } = error;
    this.#emit("error", { code, message, param: null, error: { type, code, message, param: null } });
    return this.#take();
  }

  #response(status: "in_progress" | "failed", error: Json | null = null): Json {
    const state = { status, error, output: this.#answer.output, reason: undefined, usage: null };
    return responseObject(this.#request, this.#meta, state);
  }

  #emit(type: ResponseEventType, fields: Json): void {
    const data = JSON.stringify({ type, sequence_number: this.#sequence, ...fields });
    this.#sequence += 1;
    this.#frames.push({ event: type, data });
  }

  #take(): Frame[] {
    const frames = this.#frames;
    this.#frames = [];
    return frames;
  }
}

/**
 * A whole chat completion as a response.
 * @returns OpenAI's Response without `output_text`, which its clients add themselves.
 */
export function toResponse(
  request: ResponsesRequest,
  completion: Record<string, unknown>,
  meta: ResponseMeta,
  usage: ResponseUsage,
): Record<string, unknown> {
  const answer = new Answer(request, meta.response_id, () => {});
  answer.take(completion);
  return closedResponse(request, answer, meta, { reason: answer.close(), usage });
}

function closedResponse(
  request: ResponsesRequest,
  answer: Answer,
  meta: ResponseMeta,
  { reason, usage }: { reason: ResponseState["reason"]; usage: ResponseUsage },
): Json {
  return responseObject(request, meta, {
    status: reason === undefined ? "completed" : "incomplete",
    output: answer.output,
    error: null,
    reason,
    usage: usageObject(usage, answer.reasoningTokens),
  });
}
