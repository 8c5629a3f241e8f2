import type { Usage } from "../calls/tally.ts";

/** An answer that has begun, whoever gives it: a remote provider, a local model or the scripted one. */
export interface Answer extends Disposable {
  /** The data of SSE events, as they come; `[DONE]` included. */
  batches(): AsyncIterable<string[]>;
  /** A whole answer as JSON text. */
  text(): Promise<string>;
  /** Nothing more is wanted and all was well. */
  finish(): void;
  /** Whether the answer came as an answer should. */
  report(healthy: boolean): void;
  /** What was used so far, exactly, where we count ourselves; undefined before there is anything to charge. */
  used?(): Usage | undefined;
  readonly redactor: { text(text: string): string; quick(text: string): string };
}

export interface BeginOptions {
  /** Output tokens per choice that are paid for: the request's, or fewer. */
  maxTokens: number;
  /** Ends the call at once; its reason is what the call fails with. */
  abort: AbortController;
}

/** Who will answer one request; nothing was sent and nothing costs yet. */
export interface Source extends Disposable {
  /** Input tokens the call will cost at the most. */
  readonly inputTokens: number;
  /** What the input comes to where the one who answers does not say. */
  countInput(): Promise<number>;
  /** @throws ApiError, or the reason of `abort`. */
  begin(options: BeginOptions): Promise<Answer>;
}
