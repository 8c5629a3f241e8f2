import { z } from "zod";
import { parseInput } from "#platform/http/bodies.ts";
import { AppError } from "#schemas";

/** What one choice may be asked for at once; OpenAI allows 128, nobody's balance wants that. */
const MAX_CHOICES = 16;

const positive = z.number().int().min(1).max(2_147_483_647);

/** Only what we act upon is checked; every other field goes to the provider as it came. */
const chatSchema = z.looseObject({
  model: z.string().min(1).max(200),
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
  stop: z.union([z.string(), z.array(z.string())]).nullish(),
  tools: z
    .array(z.looseObject({ type: z.string() }))
    .max(1000)
    .nullish(),
});

export type ChatBody = z.output<typeof chatSchema>;
export type ChatMessage = ChatBody["messages"][number];

export interface ChatRequest {
  body: ChatBody;
  model: string;
  stream: boolean;
  /** Whether the client asked for the extra usage chunk. */
  wantsUsage: boolean;
  choices: number;
  /** The most output tokens per choice: the client's wish, never above the server's cap. */
  maxTokens: number;
  /** Size of the body as JSON in bytes: no text has more tokens than bytes. */
  bytes: number;
}

/**
 * Check a chat completion's body.
 * @throws AppError InvalidParams naming the field.
 */
export function parseChatRequest(input: unknown, maxOutputTokens: number): ChatRequest {
  const body = parseInput(chatSchema, input);
  const wished = [body.max_tokens, body.max_completion_tokens].filter((value) => typeof value === "number");
  return {
    body,
    model: body.model,
    stream: body.stream === true,
    wantsUsage: body.stream_options?.include_usage === true,
    choices: body.n ?? 1,
    maxTokens: Math.min(maxOutputTokens, ...wished),
    bytes: Buffer.byteLength(JSON.stringify(body)),
  };
}

/**
 * What may be asked for with the server's own key: how to answer. Whatever else a provider or a proxy understands
 * (another or a dearer model as `models`, `fallbacks`, `service_tier`; somewhere else to send the key as `api_base`;
 * searches and plug-ins) is neither limited by the list of models nor paid for by tokens.
 */
const WITH_SERVER_KEY: ReadonlySet<string> = new Set([
  ...["model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "user"],
  ...["temperature", "top_p", "top_k", "min_p", "stop", "seed", "logit_bias", "logprobs", "top_logprobs"],
  ...["presence_penalty", "frequency_penalty", "repetition_penalty", "response_format", "verbosity"],
  ...["tools", "tool_choice", "parallel_tool_calls", "functions", "function_call"],
  ...["reasoning", "reasoning_effort", "thinking", "chat_template_kwargs"],
]);
/** Tools the caller runs; others are run, and charged for, by the provider. */
const CALLERS_TOOLS: ReadonlySet<string> = new Set(["function", "custom"]);

/**
 * A request without what the server's key is not for: with a user's own, everything goes to the provider as it came.
 * @throws AppError InvalidParams for a tool that the provider would run.
 */
export function withServerKey(request: ChatRequest): ChatRequest {
  const { body } = request;
  if (body.tools?.some(({ type }) => !CALLERS_TOOLS.has(type)) === true) {
    const message = "Tools that the provider runs cannot be used with the server's key.";
    throw new AppError("InvalidParams", message, { issues: [{ path: "tools", message }] });
  }
  const kept = Object.entries(body).filter(([name]) => WITH_SERVER_KEY.has(name));
  return { ...request, body: Object.fromEntries(kept) as ChatBody };
}

/**
 * The body for the provider: usage always asked for, output tokens limited under the name the client used
 * (OpenAI's newer models only know `max_completion_tokens`, most others only `max_tokens`).
 */
export function upstreamBody(request: ChatRequest, base_url: string): Record<string, unknown> {
  const { body, maxTokens, stream } = request;
  const names = (["max_tokens", "max_completion_tokens"] as const).filter(
    (name) => typeof body[name] === "number",
  );
  if (names.length === 0) {
    names.push(new URL(base_url).hostname === "api.openai.com" ? "max_completion_tokens" : "max_tokens");
  }
  const result: Record<string, unknown> = { ...body };
  for (const name of names) result[name] = maxTokens;
  if (stream) result.stream_options = { ...body.stream_options, include_usage: true };
  return result;
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
