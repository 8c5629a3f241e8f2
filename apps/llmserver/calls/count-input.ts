import { mediaParts } from "../requests/chat-request.ts";
import type { ModelRequest } from "../requests/request.ts";
import { countRequest, countTokens } from "./tokenizer.ts";

/** The most a picture or sound is expected to take. */
const TOKENS_PER_MEDIA_PART = 4096;

/** An upper bound, not an estimate: a call that cost more than its hold could not be collected. */
export function mostInputTokens(request: ModelRequest): number {
  const media = request.kind === "chat" ? mediaParts(request.body.messages) : 0;
  return request.bytes + media * TOKENS_PER_MEDIA_PART;
}

/** Input tokens of a request whose provider told nothing, counted in o200k_base; token ids count as they are. */
export async function countInput(request: ModelRequest): Promise<number> {
  if (request.kind === "chat") return countRequest(request.body);
  const inputs = request.kind === "completion" ? request.prompts : request.inputs;
  let total = 0;
  for (const input of inputs) total += typeof input === "string" ? await countTokens(input) : input.length;
  return total;
}
