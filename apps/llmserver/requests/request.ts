import { z } from "zod";
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

/** What a model is called. PostgreSQL takes no text with a zero byte in it. */
export const modelName = z
  .string()
  .min(1)
  .max(200)
  .refine((name) => !name.includes("\0"), "must not contain a zero byte");

const MAX_TOKEN_IDS = 1_000_000;
const MAX_TOKEN_ID = 2_147_483_647;

/**
 * A text as token ids. Judged as one thing: with an issue for each wrong id one body would keep the server busy for
 * seconds.
 */
export const tokenIds = z.custom<readonly number[]>(
  (value) =>
    Array.isArray(value) &&
    value.length > 0 &&
    value.length <= MAX_TOKEN_IDS &&
    value.every((id) => Number.isInteger(id) && id >= 0 && id <= MAX_TOKEN_ID),
  `must be a list of 1 to ${MAX_TOKEN_IDS} token ids`,
);

/** The body's size as it would be sent on. */
export function sizeOf(body: unknown): number {
  return Buffer.byteLength(JSON.stringify(body));
}
