import { z } from "zod";
import { parseInput } from "#platform/http/bodies.ts";
import { promptsOf } from "./completion-request.ts";
import { type RequestHead, sizeOf } from "./request.ts";

/** OpenAI's own limit. */
const MAX_INPUTS = 2048;

const text = z.string().min(1, "must not be empty");
const tokens = z.array(z.number().int().min(0).max(2_147_483_647)).min(1).max(1_000_000);

const embeddingSchema = z.looseObject({
  model: z.string().min(1).max(200),
  input: z.union([
    text,
    z.array(text).min(1).max(MAX_INPUTS),
    tokens,
    z.array(tokens).min(1).max(MAX_INPUTS),
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
