import type { ChatRequest } from "./chat-request.ts";
import type { CompletionRequest } from "./completion-request.ts";
import type { EmbeddingRequest } from "./embedding-request.ts";

/** What every request for a model's work says, whatever it asks for. */
export interface RequestHead {
  model: string;
  stream: boolean;
  /** Whether the client asked for the extra usage chunk. */
  wantsUsage: boolean;
  /** Answers that are paid for. */
  choices: number;
  /** The most output tokens per choice: the client's wish, never above the server's cap. */
  maxTokens: number;
  /** Size of the body as JSON in bytes: no text has more tokens than bytes. */
  bytes: number;
}

export type ModelRequest = ChatRequest | CompletionRequest | EmbeddingRequest;

/** The body's size as it would be sent on. */
export function sizeOf(body: unknown): number {
  return Buffer.byteLength(JSON.stringify(body));
}
