import { z } from "zod";
import { parseInput } from "#platform/http/bodies.ts";
import { AppError } from "#schemas";
import { modelName, type RequestHead, sizeOf, tokenIds } from "./request.ts";

/** What one request may be asked for at once, all prompts together. */
const MAX_CHOICES = 16;
/** As OpenAI has it: the old completions stop early unless told. */
const DEFAULT_MAX_TOKENS = 16;

const count = z.number().int().min(1).max(2_147_483_647);

/** Only what we act upon is checked; every other field goes to the provider as it came. */
const completionSchema = z.looseObject({
  model: modelName,
  prompt: z.union([
    z.string(),
    z.array(z.string()).min(1).max(MAX_CHOICES),
    tokenIds,
    z.array(tokenIds).min(1).max(MAX_CHOICES),
  ]),
  suffix: z.string().nullish(),
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().nullish() }).nullish(),
  max_tokens: count.nullish(),
  n: z.number().int().min(1).max(MAX_CHOICES).nullish(),
  best_of: z.number().int().min(1).max(MAX_CHOICES).nullish(),
  echo: z.boolean().nullish(),
});

type CompletionBody = z.output<typeof completionSchema>;

export interface CompletionRequest extends RequestHead {
  kind: "completion";
  body: CompletionBody;
  /** Each is answered `n` times: choice `i * n + j` is answer j to prompt i. */
  prompts: readonly (string | readonly number[])[];
}

/**
 * Check a completion's body.
 * @throws AppError InvalidParams naming the field.
 */
export function parseCompletionRequest(input: unknown, maxOutputTokens: number): CompletionRequest {
  const body = parseInput(completionSchema, input);
  const prompts = promptsOf(body.prompt);
  const choices = prompts.length * Math.max(body.n ?? 1, body.best_of ?? 1);
  if (choices > MAX_CHOICES) {
    const message = `${choices} answers at once are too many: prompts times n are ${MAX_CHOICES} at most`;
    throw new AppError("InvalidParams", message, { issues: [{ path: "n", message }] });
  }
  return {
    kind: "completion",
    body,
    prompts,
    model: body.model,
    stream: body.stream === true,
    wantsUsage: body.stream_options?.include_usage === true,
    choices,
    maxTokens: Math.min(maxOutputTokens, body.max_tokens ?? DEFAULT_MAX_TOKENS),
    bytes: sizeOf(body),
  };
}

/** One prompt is a text or a list of token ids; several are a list of either. */
export function promptsOf(
  prompt: string | readonly (string | number | readonly number[])[],
): (string | readonly number[])[] {
  if (typeof prompt === "string") return [prompt];
  if (typeof prompt[0] === "number") return [prompt as readonly number[]];
  return [...(prompt as readonly (string | readonly number[])[])];
}
