import type { Dialect } from "../calls/dialect.ts";
import { plainDialect } from "../calls/dialect.ts";
import { parseChatRequest } from "../requests/chat-request.ts";
import { parseCompletionRequest } from "../requests/completion-request.ts";
import { parseEmbeddingRequest } from "../requests/embedding-request.ts";
import type { ModelRequest } from "../requests/request.ts";
import { openResponses } from "./responses.ts";

/** A route that has a model do something: how its body is read and its answer worded. */
export interface Endpoint {
  /** As it is called and as it is recorded. */
  readonly path: string;
  /** @throws AppError or ApiError naming the field that is wrong. */
  open(body: unknown, maxOutputTokens: number): { request: ModelRequest; dialect: Dialect };
}

/** Every such route: adding one = its request, its dialect and an entry here. */
export const ENDPOINTS: readonly Endpoint[] = [
  { path: "/v1/chat/completions", open: (body, max) => plain(parseChatRequest(body, max)) },
  { path: "/v1/completions", open: (body, max) => plain(parseCompletionRequest(body, max)) },
  { path: "/v1/embeddings", open: (body) => plain(parseEmbeddingRequest(body)) },
  { path: "/v1/responses", open: openResponses },
];

function plain(request: ModelRequest): { request: ModelRequest; dialect: Dialect } {
  return { request, dialect: plainDialect(request) };
}
