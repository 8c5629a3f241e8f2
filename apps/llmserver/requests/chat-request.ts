import { z } from "zod";
import { parseInput } from "#platform/http/bodies.ts";
import { modelName, type RequestHead, sizeOf } from "./request.ts";

/** What one choice may be asked for at once; OpenAI allows 128, nobody's balance wants that. */
const MAX_CHOICES = 16;
/** OpenAI takes 4, others more. */
const MAX_STOPS = 1000;

const positive = z.number().int().min(1).max(2_147_483_647);

/** Only what we act upon is checked; every other field goes to the provider as it came. */
const chatSchema = z.looseObject({
  model: modelName,
  messages: z
    .array(z.looseObject({ role: z.string().min(1).max(40), content: z.unknown() }))
    .min(1, "must hold at least one message")
    .max(20_000),
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().nullish() }).nullish(),
  max_tokens: positive.nullish(),
  max_completion_tokens: positive.nullish(),
  n: z.number().int().min(1).max(MAX_CHOICES).nullish(),
  temperature: z.number().nullish(),
  top_p: z.number().nullish(),
  stop: z.union([z.string(), z.array(z.string()).max(MAX_STOPS)]).nullish(),
  tools: z
    .array(z.looseObject({ type: z.string() }))
    .max(1000)
    .nullish(),
});

export type ChatBody = z.output<typeof chatSchema>;
export type ChatMessage = ChatBody["messages"][number];

export interface ChatRequest extends RequestHead {
  kind: "chat";
  body: ChatBody;
}

/**
 * Check a chat completion's body.
 * @throws AppError InvalidParams naming the field.
 */
export function parseChatRequest(input: unknown, maxOutputTokens: number): ChatRequest {
  const body = parseInput(chatSchema, input);
  const wished = [body.max_tokens, body.max_completion_tokens].filter((value) => typeof value === "number");
  return {
    kind: "chat",
    body,
    model: body.model,
    stream: body.stream === true,
    wantsUsage: body.stream_options?.include_usage === true,
    choices: body.n ?? 1,
    maxTokens: Math.min(maxOutputTokens, ...wished),
    bytes: sizeOf(body),
  };
}

/** Parts of messages that are no text (images, sound): their tokens do not follow from their bytes. */
export function mediaParts(messages: readonly ChatMessage[]): number {
  let count = 0;
  for (const { content } of messages) {
    if (!Array.isArray(content)) continue;
    for (const part of content) if (typeof part?.text !== "string") count += 1;
  }
  return count;
}
