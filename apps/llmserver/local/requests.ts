import { z } from "zod";
import { parseInput } from "#platform/http/bodies.ts";
import { isObject } from "#platform/json.ts";
import { ApiError } from "../api-error.ts";
import type { ChatRequest } from "../requests/chat-request.ts";
import type { CompletionRequest } from "../requests/completion-request.ts";
import type {
  ChatGenerate,
  CompletionGenerate,
  FunctionTool,
  ResponseFormat,
  Sampling,
  ToolChoice,
} from "./types.ts";

/** Alternatives per token one may ask for, as at OpenAI. */
const MAX_TOP_LOGPROBS = 20;
const MAX_LEGACY_LOGPROBS = 5;

/** What no local model does: refused by name, where leaving it out would give another answer than was asked for. */
const UNSUPPORTED: Readonly<Record<string, string>> = {
  functions: "Use `tools`.",
  function_call: "Use `tool_choice`.",
  audio: "Local models write text only.",
  web_search_options: "Local models cannot search.",
};

const stopSchema = z
  .union([z.string(), z.array(z.string()).max(4)])
  .nullish()
  .transform((stop) => [stop ?? []].flat().filter((text) => text !== ""));

const samplingSchema = z.looseObject({
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  top_k: z.number().int().min(0).max(1_000_000).nullish(),
  min_p: z.number().min(0).max(1).nullish(),
  seed: z.number().int().min(Number.MIN_SAFE_INTEGER).max(Number.MAX_SAFE_INTEGER).nullish(),
  frequency_penalty: z.number().min(-2).max(2).nullish(),
  presence_penalty: z.number().min(-2).max(2).nullish(),
  repetition_penalty: z.number().min(0.01).max(10).nullish(),
  logit_bias: z.record(z.string().regex(/^\d{1,10}$/), z.number().min(-100).max(100)).nullish(),
  stop: stopSchema,
});

const toolSchema = z.looseObject({
  type: z.literal("function", "local models know tools of type function only"),
  function: z.looseObject({
    name: z.string().regex(/^[\w-]{1,64}$/, "letters, digits, _ and - only, at most 64"),
    description: z.string().nullish(),
    parameters: z.record(z.string(), z.unknown()).nullish(),
  }),
});

const formatSchema = z.discriminatedUnion("type", [
  z.looseObject({ type: z.literal("text") }),
  z.looseObject({ type: z.literal("json_object") }),
  z.looseObject({
    type: z.literal("json_schema"),
    json_schema: z.looseObject({ schema: z.record(z.string(), z.unknown()) }),
  }),
]);

const chatSchema = samplingSchema.extend({
  tools: z.array(toolSchema).max(128).nullish(),
  tool_choice: z
    .union([
      z.enum(["none", "auto", "required"]),
      z.looseObject({ type: z.literal("function"), function: z.looseObject({ name: z.string() }) }),
    ])
    .nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  response_format: formatSchema.nullish(),
  logprobs: z.boolean().nullish(),
  top_logprobs: z.number().int().min(0).max(MAX_TOP_LOGPROBS).nullish(),
  modalities: z.array(z.literal("text", "local models write text only")).nullish(),
});

const completionSchema = samplingSchema.extend({
  logprobs: z.number().int().min(0).max(MAX_LEGACY_LOGPROBS).nullish(),
});

/**
 * A chat as the engine takes it.
 * @throws AppError InvalidParams or ApiError 400, naming the parameter that is wrong or not to be had here.
 */
export function toChatGenerate(request: ChatRequest): ChatGenerate {
  refuseUnsupported(request.body);
  const body = parseInput(chatSchema, request.body);
  const tools = (body.tools ?? []).map(
    ({ function: { name, description, parameters } }): FunctionTool => ({
      name,
      description: description ?? undefined,
      parameters: parameters ?? undefined,
    }),
  );
  if (body.top_logprobs != null && body.logprobs !== true)
    throw refused("top_logprobs", "It needs `logprobs`.");
  return {
    kind: "chat",
    messages: request.body.messages,
    tools,
    tool_choice: choiceOf(body.tool_choice, tools),
    parallel_tool_calls: body.parallel_tool_calls ?? true,
    response_format: formatOf(body.response_format),
    sampling: samplingOf(body),
    stop: body.stop,
    max_tokens: request.maxTokens,
    n: request.choices,
    logprobs: body.logprobs === true ? (body.top_logprobs ?? 0) : undefined,
  };
}

/** One request of the engine for each prompt. @throws as `toChatGenerate`. */
export function toCompletionGenerates(request: CompletionRequest): CompletionGenerate[] {
  refuseUnsupported(request.body);
  const { n, best_of, suffix, echo } = request.body;
  if ((best_of ?? 1) > (n ?? 1)) throw refused("best_of", "Local models answer `n` times and keep all.");
  if (echo === true && request.prompts.some((prompt) => typeof prompt !== "string")) {
    throw refused("echo", "A prompt given as token ids is not echoed.");
  }
  const body = parseInput(completionSchema, request.body);
  return request.prompts.map((prompt) => ({
    kind: "completion",
    prompt,
    suffix: suffix ?? undefined,
    sampling: samplingOf(body),
    stop: body.stop,
    max_tokens: request.maxTokens,
    n: n ?? 1,
    logprobs: body.logprobs ?? undefined,
  }));
}

/** 400 in OpenAI's words for a parameter that cannot be served. */
export function refused(param: string, hint: string): ApiError {
  return new ApiError(400, `Unsupported parameter: '${param}' is not supported with this model. ${hint}`, {
    param,
    code: "unsupported_parameter",
  });
}

function refuseUnsupported(body: Record<string, unknown>): void {
  for (const [name, hint] of Object.entries(UNSUPPORTED)) {
    if (body[name] !== undefined && body[name] !== null) throw refused(name, hint);
  }
}

function samplingOf(body: z.output<typeof samplingSchema>): Sampling {
  return {
    temperature: body.temperature ?? undefined,
    top_p: body.top_p ?? undefined,
    top_k: body.top_k ?? undefined,
    min_p: body.min_p ?? undefined,
    seed: body.seed ?? undefined,
    frequency_penalty: body.frequency_penalty ?? undefined,
    presence_penalty: body.presence_penalty ?? undefined,
    repetition_penalty: body.repetition_penalty ?? undefined,
    logit_bias: body.logit_bias ?? undefined,
  };
}

function choiceOf(
  given: z.output<typeof chatSchema>["tool_choice"],
  tools: readonly FunctionTool[],
): ToolChoice {
  if (given == null) return tools.length > 0 ? "auto" : "none";
  if (given !== "none" && given !== "auto" && tools.length === 0) {
    throw refused("tool_choice", "It needs `tools`.");
  }
  if (!isObject(given)) return given;
  const { name } = given.function;
  if (tools.some((tool) => tool.name === name)) return { name };
  throw new ApiError(400, `tool_choice: there is no tool named "${name}".`, { param: "tool_choice" });
}

function formatOf(given: z.output<typeof chatSchema>["response_format"]): ResponseFormat {
  if (given?.type === "json_object") return { type: "json_object" };
  if (given?.type === "json_schema") return { type: "json_schema", schema: given.json_schema.schema };
  return { type: "text" };
}
