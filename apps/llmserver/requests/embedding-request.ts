import { z } from "zod";
import { parseInput } from "#platform/http/bodies.ts";
import { promptsOf } from "./completion-request.ts";
import { modelName, type RequestHead, sizeOf, tokenIds } from "./request.ts";

/** OpenAI's own limit. */
const MAX_INPUTS = 2048;

const text = z.string().min(1, "must not be empty");

const embeddingSchema = z.looseObject({
  model: modelName,
  input: z.union([
    text,
    z.array(text).min(1).max(MAX_INPUTS),
    tokenIds,
    z.array(tokenIds).min(1).max(MAX_INPUTS),
  ]),
  encoding_format: z.enum(["float", "base64"]).nullish(),
  dimensions: z.number().int().min(1).max(65_536).nullish(),
});

type EmbeddingBody = z.output<typeof embeddingSchema>;

export interface EmbeddingRequest extends RequestHead {
  kind: "embedding";
  body: EmbeddingBody;
  inputs: readonly (string | readonly number[])[];
}

/**
 * Check an embedding's body.
 * @throws AppError InvalidParams naming the field.
 */
export function parseEmbeddingRequest(input: unknown): EmbeddingRequest {
  const body = parseInput(embeddingSchema, input);
  return {
    kind: "embedding",
    body,
    inputs: promptsOf(body.input),
    model: body.model,
    stream: false,
    wantsUsage: false,
    choices: 1,
    maxTokens: 0,
    bytes: sizeOf(body),
  };
}
