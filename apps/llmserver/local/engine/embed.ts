import { setImmediate as breathe } from "node:timers/promises";
import type { LlamaEmbeddingContext, Token } from "node-llama-cpp";
import { type Loaded, refuseHopeless } from "./loaded.ts";
import { invalid } from "./refusal.ts";

export interface Embeddings {
  vectors: Float32Array[];
  input_tokens: number;
}

/**
 * One vector per input, of length 1: models differ in whether theirs are, and a dot product should be a cosine.
 * @throws Refusal 400; the signal's reason.
 */
export async function embed(
  loaded: Loaded,
  inputs: readonly (string | readonly number[])[],
  signal: AbortSignal,
): Promise<Embeddings> {
  const context = loaded.embedding;
  if (context === undefined) {
    throw invalid("model", "This model writes text and makes no embeddings; use an embedding model.");
  }
  const prepared: Token[][] = [];
  let total = 0;
  for (const [index, input] of inputs.entries()) {
    signal.throwIfAborted();
    if (typeof input === "string") await refuseHopeless(loaded, [input], `input[${index}]`);
    const { tokens, length } = tokensOf(loaded, context, input, index);
    prepared.push(tokens);
    total += length;
    await breathe();
  }
  const vectors: Float32Array[] = [];
  for (const tokens of prepared) {
    signal.throwIfAborted();
    const { vector } = await context.getEmbeddingFor(tokens);
    vectors.push(normalised(vector));
  }
  return { vectors, input_tokens: total };
}

function tokensOf(
  { model, info }: Loaded,
  context: LlamaEmbeddingContext,
  input: string | readonly number[],
  index: number,
): { tokens: Token[]; length: number } {
  const param = `input[${index}]`;
  const tokens = typeof input === "string" ? model.tokenize(input) : ([...input] as Token[]);
  const unknown = tokens.find((token) => !Number.isInteger(token) || token < 0 || token >= info.vocabulary);
  if (unknown !== undefined) {
    throw invalid(param, `There is no token ${unknown}; this model has ${info.vocabulary}.`, "invalid_value");
  }
  if (tokens.length === 0) throw invalid(param, "It is empty.", "invalid_value");
  // With the tokens that mark beginning and end.
  const length = context.calculateInputLength(tokens);
  if (length > info.context_size) {
    throw invalid(
      param,
      `This model embeds at most ${info.context_size} tokens at once; this came to ${length}.`,
      "context_length_exceeded",
    );
  }
  return { tokens, length };
}

function normalised(vector: readonly number[]): Float32Array {
  const length = Math.hypot(...vector);
  return Float32Array.from(vector, (value) => (length === 0 ? 0 : value / length));
}
