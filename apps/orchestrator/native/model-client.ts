import { createParser } from "eventsource-parser";
import { type Dispatcher, request } from "undici";
import type { Model, ModelCall, ModelDelta } from "#agents/loop/index.ts";
import { asObject, parseForeignJson } from "#platform/json.ts";
import type { Log } from "#platform/log.ts";
import { AppError, ERRORS, type ErrorCode, type TaskError } from "#schemas";
import { fromErrorAnswer, fromErrorObject, fromThrown, modelError } from "../bridge/model-error.ts";

const MAX_ERROR_BYTES = 64 * 1024;
/** A single event larger than this is no answer of a model. */
const MAX_EVENT_BYTES = 8 * 1024 * 1024;

export interface ModelClientOptions {
  /** The model server's OpenAI base, as in `http://127.0.0.1:6988/v1`. */
  readonly llmUrl: string;
  readonly dispatcher: Dispatcher;
  /** Speaks for one task at the model server. */
  readonly token: string;
  readonly model: string;
  /** Calls the task may make. */
  readonly maxModelCalls: number;
  /** No call gets more, whatever it asks for. */
  readonly maxOutputTokens: number;
  /** Longest wait for one answer's first or next byte, ms; a run's own watchdogs strike before it. */
  readonly timeoutMs: number;
  /** The model was asked or said something. */
  onActivity(): void;
  readonly log: Log;
}

/** One task's way to its model, straight to the model server: what the bridge is to a sandbox. */
export class ModelClient implements Model {
  readonly #options: ModelClientOptions;
  /** Calls made. */
  calls = 0;
  /** When the first one was made, ms of `performance.now()`. */
  firstCallAt: number | undefined;
  /** What the last call failed with, unless a later one went well. */
  error: TaskError | undefined;

  constructor(options: ModelClientOptions) {
    this.#options = options;
  }

  /**
   * Ask once. The connection is closed at once when `signal` aborts or nobody reads on.
   * @throws AppError as the bridge tells failures, RunFailed beyond the task's number of calls; what `signal` was
   * aborted with.
   */
  async *stream(call: ModelCall, signal: AbortSignal): AsyncGenerator<ModelDelta> {
    signal.throwIfAborted();
    this.#countCall();
    const { onActivity } = this.#options;
    onActivity();
    let answering = false;
    const unread = new AbortController();
    try {
      const body = await this.#ask(call, AbortSignal.any([signal, unread.signal]));
      answering = true;
      const answer = new AnswerReader();
      for await (const chunk of body) {
        onActivity();
        answer.feed(chunk);
        yield* answer.take();
        if (answer.done) return;
      }
      yield* answer.end();
    } catch (error) {
      signal.throwIfAborted();
      throw this.#failed(error, answering);
    } finally {
      unread.abort();
    }
  }

  #countCall(): void {
    const { maxModelCalls } = this.#options;
    if (this.calls >= maxModelCalls) throw this.#remember(overLimit(maxModelCalls));
    this.calls += 1;
    this.firstCallAt ??= performance.now();
    this.error = undefined;
  }

  async #ask(call: ModelCall, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>> {
    const { llmUrl, dispatcher, token, timeoutMs } = this.#options;
    const { statusCode, headers, body } = await request(`${llmUrl}/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: JSON.stringify(this.#question(call)),
      signal,
      dispatcher,
      headersTimeout: timeoutMs,
      bodyTimeout: timeoutMs,
    });
    if (statusCode !== 200) throw toError(fromErrorAnswer(statusCode, await readSome(body)));
    if (!String(headers["content-type"] ?? "").startsWith("text/event-stream")) {
      throw toError(modelError("ProviderError", "The model server did not answer with a stream."));
    }
    return body;
  }

  #question({ messages, tools, maxOutputTokens, temperature }: ModelCall): Record<string, unknown> {
    return {
      model: this.#options.model,
      messages,
      ...(tools.length === 0 ? {} : { tools: tools.map((tool) => ({ type: "function", function: tool })) }),
      max_tokens: Math.min(maxOutputTokens, this.#options.maxOutputTokens),
      ...(temperature === undefined ? {} : { temperature }),
      stream: true,
      stream_options: { include_usage: true },
    };
  }

  #failed(error: unknown, answering: boolean): AppError {
    if (error instanceof AppError) return this.#remember(error);
    this.#options.log.warn({ err: error }, "a model call did not get through");
    return this.#remember(toError(fromThrown(error, answering)));
  }

  #remember(error: AppError): AppError {
    const { hint } = error.details;
    this.error = { code: error.code, message: error.message, ...(hint === undefined ? {} : { hint }) };
    return error;
  }
}

/** Turns the events of one streamed answer into deltas. */
class AnswerReader {
  /** The model server has said that this is all. */
  done = false;
  readonly #decoder = new TextDecoder();
  readonly #parser = createParser({ onEvent: ({ data }) => this.#event(data) });
  #deltas: ModelDelta[] = [];
  #finished = false;
  #calls = 0;
  #sinceEvent = 0;

  /** @throws AppError for an error that the stream tells of, whatever a parser throws for what is no stream. */
  feed(chunk: Uint8Array): void {
    this.#sinceEvent += chunk.length;
    if (this.#sinceEvent > MAX_EVENT_BYTES) throw new RangeError("an event without end");
    this.#parser.feed(this.#decoder.decode(chunk, { stream: true }));
  }

  /** What has come since the last time. */
  take(): readonly ModelDelta[] {
    const deltas = this.#deltas;
    this.#deltas = [];
    return deltas;
  }

  /** The stream is over. @throws AppError when the answer is not. */
  end(): readonly ModelDelta[] {
    if (!this.#finished)
      throw toError(modelError("ProviderError", "The model's answer ended before it was complete."));
    return this.take();
  }

  #event(data: string): void {
    this.#sinceEvent = 0;
    if (this.done) return;
    if (data === "[DONE]") {
      // Without a reason it is no end: the stream's own end will tell.
      this.done = this.#finished;
      return;
    }
    const event = asObject(parseForeignJson(data));
    if (event === undefined) throw new SyntaxError("not an object");
    // Once the model has finished, a failure takes nothing of its answer back.
    if (event.error !== undefined && event.error !== null && !this.#finished)
      throw toError(fromErrorObject(event.error));
    this.#usage(asObject(event.usage));
    const choice = Array.isArray(event.choices) ? asObject(event.choices[0]) : undefined;
    if (choice === undefined) return;
    this.#delta(asObject(choice.delta));
    if (typeof choice.finish_reason === "string" && !this.#finished) {
      this.#finished = true;
      this.#deltas.push({ type: "finish", reason: choice.finish_reason });
    }
  }

  #usage(usage: Record<string, unknown> | undefined): void {
    const [input_tokens, output_tokens] = [usage?.prompt_tokens, usage?.completion_tokens];
    if (!isCount(input_tokens) || !isCount(output_tokens)) return;
    this.#deltas.push({ type: "usage", input_tokens, output_tokens });
  }

  #delta(delta: Record<string, unknown> | undefined): void {
    if (delta === undefined) return;
    const thought = delta.reasoning_content ?? delta.reasoning;
    if (typeof thought === "string" && thought !== "") this.#deltas.push({ type: "thought", text: thought });
    const { content } = delta;
    if (typeof content === "string" && content !== "") this.#deltas.push({ type: "text", text: content });
    if (Array.isArray(delta.tool_calls)) for (const call of delta.tool_calls) this.#call(asObject(call));
  }

  #call(call: Record<string, unknown> | undefined): void {
    const wanted = asObject(call?.function);
    const { id } = call ?? {};
    const { name, arguments: text } = wanted ?? {};
    // Some servers number no calls: one with an id begins the next.
    const begins = typeof id === "string" && id !== "" && typeof name === "string";
    const unnumbered = begins ? this.#calls : Math.max(0, this.#calls - 1);
    const index = isCount(call?.index) ? call.index : unnumbered;
    this.#calls = Math.max(this.#calls, index + 1);
    this.#deltas.push({
      type: "call",
      index,
      ...(typeof id === "string" ? { id } : {}),
      ...(typeof name === "string" ? { name } : {}),
      ...(typeof text === "string" ? { arguments: text } : {}),
    });
  }
}

const isCount = (value: unknown): value is number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0;

const isErrorCode = (code: string): code is ErrorCode => Object.hasOwn(ERRORS, code);

function toError({ code, message, hint }: TaskError): AppError {
  return new AppError(
    isErrorCode(code) ? code : "ProviderError",
    message,
    hint === undefined ? {} : { hint },
  );
}

function overLimit(maxModelCalls: number): AppError {
  return new AppError("RunFailed", `The task has made all ${maxModelCalls} model calls it may make.`, {
    hint: "Ask for less at a time, or raise CDS_MAX_MODEL_CALLS.",
  });
}

/** An error's text, or as much of it as anybody reads. */
async function readSome(body: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes > MAX_ERROR_BYTES) break;
  }
  return Buffer.concat(chunks).toString("utf8");
}
