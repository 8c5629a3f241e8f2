import type { ChatRequest } from "./chat-request.ts";

/** An answer that has begun, whoever gives it: a remote provider or the scripted model. */
export interface Answer extends Disposable {
  /** The data of SSE events, as they come; `[DONE]` included. */
  batches(): AsyncIterable<string[]>;
  /** A whole answer as JSON text. */
  text(): Promise<string>;
  /** Nothing more is wanted and all was well. */
  finish(): void;
  /** Whether the answer came as an answer should. */
  report(healthy: boolean): void;
  readonly redactor: { text(text: string): string; quick(text: string): string };
}

export interface SourceCall {
  request: ChatRequest;
  user_id: string;
  /** Ends the call at once; its reason is what the call fails with. */
  abort: AbortController;
}

export type Source = (call: SourceCall) => Promise<Answer>;
