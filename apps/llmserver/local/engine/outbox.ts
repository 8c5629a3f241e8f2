import type { EngineBatch, EngineEvent, EngineUsage, FinishReason, TokenLogprob } from "../types.ts";
import type { Run } from "./run.ts";

/** Events gathered into one message for at most this long, ms; nobody reads faster. */
const GATHER_MS = 25;
/** And at most this many. */
const GATHER_EVENTS = 8;

/** Where one choice's events go. */
export interface ChoiceSink {
  text(text: string, logprobs: TokenLogprob[]): void;
  reasoning(text: string): void;
  call(index: number, name: string | undefined, text: string): void;
  finish(reason: FinishReason): void;
}

/** Gathers what the choices of one request say into batches, each with the usage up to its end. */
export class Outbox {
  readonly #send: (batch: EngineBatch) => void;
  readonly #runs: Run[] = [];
  #events: EngineEvent[] = [];
  #sentAt = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;

  constructor(send: (batch: EngineBatch) => void) {
    this.#send = send;
  }

  /** One more run counts. */
  add(run: Run): void {
    this.#runs.push(run);
  }

  choice(choice: number): ChoiceSink {
    return {
      text: (text, logprobs) => {
        this.#add({ type: "text", choice, text, ...(logprobs.length === 0 ? {} : { logprobs }) });
      },
      reasoning: (text) => this.#add({ type: "reasoning", choice, text }),
      call: (index, name, text) => {
        this.#add({
          type: "tool_call",
          choice,
          index,
          ...(name === undefined ? {} : { name }),
          arguments: text,
        });
      },
      finish: (reason) => this.#add({ type: "finish", choice, reason }),
    };
  }

  /** Send what there is, and the usage even without any event: what was generated is paid for, delivered or not. */
  close(): void {
    if (this.#events.length > 0 || this.#runs.length > 0) this.#flush();
    clearTimeout(this.#timer);
  }

  /** The prompt counts once, however many choices it is evaluated for; found in the context is what the first one found. */
  #usage(): EngineUsage {
    return {
      input_tokens: Math.max(0, ...this.#runs.map((run) => run.input)),
      cached_tokens: this.#runs[0]?.cached ?? 0,
      output_tokens: this.#runs.reduce((sum, run) => sum + run.output.length, 0),
    };
  }

  #add(event: EngineEvent): void {
    this.#events.push(event);
    const since = performance.now() - this.#sentAt;
    if (since >= GATHER_MS || this.#events.length >= GATHER_EVENTS) this.#flush();
    else this.#timer ??= setTimeout(() => this.#flush(), GATHER_MS - since);
  }

  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#sentAt = performance.now();
    const events = this.#events;
    this.#events = [];
    this.#send({ events, usage: this.#usage() });
  }
}
