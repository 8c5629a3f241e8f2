import { isObject } from "#platform/json.ts";
import { ApiError } from "../api-error.ts";
import type { FromEngine, RefusedFields, ToEngine } from "./engine/protocol.ts";
import type { Ending, EngineProcess } from "./engine-process.ts";
import type { Embedded, EngineBatch, EngineInfo, GenerateRequest, LoadedModel } from "./types.ts";

/** How long a cancelled request waits for the figures of what it used, ms: a step of a slow model. */
const CANCEL_PATIENCE_MS = 3_000;

type Answer = Exclude<FromEngine, { type: "estimate" | "loaded" | "failed" | "pong" }>;
type Asked = Extract<ToEngine, { type: "count" | "generate" | "embed" }>;
/** The members of a union without its id. */
type WithoutId<Message> = Message extends unknown ? Omit<Message, "id"> : never;

/** What a request waits for: its messages one after another, or the reason it gets no more. */
interface Conversation {
  answers: Answer[];
  failure: Error | undefined;
  wake: () => void;
}

/** A loaded model, seen from the studio: every request is a conversation with its process. */
export class EngineModel implements LoadedModel {
  readonly info: EngineInfo;
  readonly closed: Promise<Ending>;
  readonly #process: EngineProcess;
  readonly #conversations = new Map<number, Conversation>();
  #nextId = 1;
  #end: Ending | undefined;
  #closing = false;

  constructor(process: EngineProcess, info: EngineInfo) {
    this.#process = process;
    this.info = info;
    process.onMessage = (message) => this.#take(message);
    this.closed = process.ended.then((ending) => {
      this.#end = ending;
      for (const conversation of this.#conversations.values()) this.#fail(conversation, this.#gone());
      return ending;
    });
  }

  get pid(): number {
    return this.#process.pid;
  }

  get active(): number {
    return this.#conversations.size;
  }

  memoryBytes(): Promise<number> {
    return this.#process.memoryBytes();
  }

  async count(request: GenerateRequest, signal: AbortSignal): Promise<number> {
    for await (const answer of this.#ask({ type: "count", request }, signal)) {
      if (answer.type === "counted") return answer.tokens;
    }
    throw signal.reason;
  }

  async *generate(request: GenerateRequest, signal: AbortSignal): AsyncIterable<EngineBatch> {
    for await (const answer of this.#ask({ type: "generate", request }, signal)) {
      if (answer.type === "batch") yield answer.batch;
    }
    signal.throwIfAborted();
  }

  async embed(inputs: readonly (string | readonly number[])[], signal: AbortSignal): Promise<Embedded> {
    for await (const answer of this.#ask({ type: "embed", inputs }, signal)) {
      if (answer.type !== "embedded") continue;
      return { vectors: answer.vectors.map(vectorOf), input_tokens: answer.input_tokens };
    }
    throw signal.reason;
  }

  async close(): Promise<void> {
    this.#closing = true;
    for (const conversation of this.#conversations.values()) this.#fail(conversation, this.#gone());
    await this.#process.kill();
  }

  /** Ends after `done`, `counted` or `embedded`; when aborted, after what was used is known, or not in time. */
  async *#ask(message: WithoutId<Asked>, signal: AbortSignal): AsyncGenerator<Answer, void> {
    signal.throwIfAborted();
    if (this.#closing || this.#end !== undefined) throw this.#gone();
    const id = this.#nextId++;
    const conversation: Conversation = { answers: [], failure: undefined, wake: () => {} };
    this.#conversations.set(id, conversation);
    let patience: NodeJS.Timeout | undefined;
    const cancel = () => {
      this.#process.send({ type: "cancel", id });
      patience = setTimeout(() => this.#fail(conversation, asError(signal.reason)), CANCEL_PATIENCE_MS);
    };
    signal.addEventListener("abort", cancel, { once: true });
    let over = false;
    try {
      this.#process.send({ ...message, id });
      while (!over) {
        const answer = conversation.answers.shift();
        if (answer === undefined) {
          if (conversation.failure !== undefined) throw conversation.failure;
          await new Promise<void>((resolve) => {
            conversation.wake = resolve;
          });
          continue;
        }
        if (answer.type === "refused") throw toApiError(answer.error);
        over = answer.type !== "batch";
        yield answer;
      }
    } finally {
      clearTimeout(patience);
      signal.removeEventListener("abort", cancel);
      this.#conversations.delete(id);
      // Whoever left the loop early wants no more of it.
      if (!over) this.#process.send({ type: "cancel", id });
    }
  }

  #take(message: FromEngine): void {
    if (!isObject(message) || !("id" in message)) return;
    const conversation = this.#conversations.get(message.id);
    if (conversation === undefined) return;
    conversation.answers.push(message);
    conversation.wake();
  }

  /** Answers that came before are still read. */
  #fail(conversation: Conversation, failure: Error): void {
    conversation.failure ??= failure;
    conversation.wake();
  }

  #gone(): ApiError {
    if (this.#closing) {
      return new ApiError(503, "The model was unloaded.", { code: "model_unloaded", shouldRetry: false });
    }
    return new ApiError(503, "The model's process ended unexpectedly. Try again; it is loaded anew.", {
      code: "engine_crashed",
      shouldRetry: true,
      cause: new Error(this.#end?.reason ?? "it has just ended"),
    });
  }
}

function toApiError({ status, message, code, param, retry_after_seconds }: RefusedFields): ApiError {
  return new ApiError(status, message, {
    ...(status === 429 ? { type: "rate_limit_error" } : {}),
    code: code ?? null,
    param: param ?? null,
    ...(retry_after_seconds === undefined
      ? {}
      : { retryAfterSeconds: retry_after_seconds, shouldRetry: true }),
  });
}

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason));
}

function vectorOf(base64: string): Float32Array {
  const bytes = Uint8Array.from(Buffer.from(base64, "base64"));
  return new Float32Array(bytes.buffer);
}
