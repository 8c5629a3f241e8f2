import { z } from "zod";
import { parseInput } from "#platform/http/bodies.ts";
import { type InputItem, parseInputItems } from "./input.ts";
import { invalid, parseAt, unsupported } from "./refuse.ts";

const MAX_TOOLS = 1000;
/** As at OpenAI: alternatives per token, and what metadata may hold. */
const MAX_TOP_LOGPROBS = 20;
const MAX_METADATA = 16;

const count = z.number().int().min(1).max(2_147_483_647);
const name = z.string().regex(/^[\w-]{1,64}$/, "letters, digits, _ and - only, at most 64");

const formatSchema = z.discriminatedUnion("type", [
  z.object({ type: z.literal("text") }),
  z.object({ type: z.literal("json_object") }),
  z.object({
    type: z.literal("json_schema"),
    name,
    schema: z.record(z.string(), z.unknown()),
    description: z.string().nullish(),
    strict: z.boolean().nullish(),
  }),
]);

const functionSchema = z.object({
  type: z.literal("function"),
  name,
  description: z.string().nullish(),
  parameters: z.record(z.string(), z.unknown()).nullish(),
  strict: z.boolean().nullish(),
});

const choiceSchema = z.union([
  z.enum(["none", "auto", "required"]),
  z.object({ type: z.literal("function"), name: z.string() }),
]);

/** What a chat knows by the same name; it goes on as it came. */
const sharedSchema = z.object({
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  user: z.string().nullish(),
  safety_identifier: z.string().nullish(),
  prompt_cache_key: z.string().nullish(),
  prompt_cache_retention: z.string().nullish(),
  service_tier: z.string().nullish(),
  // Not OpenAI's here, but of our chat's and most providers': without them nothing could be repeated or cut short.
  seed: z.number().int().nullish(),
  stop: z.union([z.string(), z.array(z.string())]).nullish(),
  top_k: z.number().nullish(),
  min_p: z.number().nullish(),
  frequency_penalty: z.number().nullish(),
  presence_penalty: z.number().nullish(),
  repetition_penalty: z.number().nullish(),
  logit_bias: z.record(z.string(), z.number()).nullish(),
});

const bodySchema = z.looseObject({
  model: z.string().min(1).max(200),
  instructions: z.string().nullish(),
  stream: z.boolean().nullish(),
  tools: z
    .array(z.looseObject({ type: z.string() }))
    .max(MAX_TOOLS)
    .nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  max_output_tokens: count.nullish(),
  text: z.looseObject({ format: formatSchema.nullish(), verbosity: z.string().max(40).nullish() }).nullish(),
  reasoning: z
    .looseObject({
      effort: z.string().max(40).nullish(),
      summary: z.string().max(40).nullish(),
      generate_summary: z.string().max(40).nullish(),
    })
    .nullish(),
  metadata: z
    .record(z.string().max(64), z.string().max(512))
    .refine((pairs) => Object.keys(pairs).length <= MAX_METADATA, `${MAX_METADATA} pairs at most`)
    .nullish(),
  include: z.array(z.string()).nullish(),
  top_logprobs: z.number().int().min(0).max(MAX_TOP_LOGPROBS).nullish(),
  truncation: z.string().nullish(),
  store: z.boolean().nullish(),
  background: z.boolean().nullish(),
  ...sharedSchema.shape,
});

type Body = z.output<typeof bodySchema>;

/** What leans on something kept here, or done by OpenAI besides answering. */
const UNSUPPORTED: Readonly<Record<string, string>> = {
  previous_response_id: "Nothing is stored here: send the whole history as `input`.",
  conversation: "Nothing is stored here: send the whole history as `input`.",
  prompt: "No prompt templates are stored here: send `instructions` and `input`.",
  context_management: "Histories are not compacted here: send a shorter `input`.",
  moderation: "Nothing is moderated here.",
};

export type FunctionTool = z.output<typeof functionSchema>;
export type TextFormat = z.output<typeof formatSchema>;
type ToolChoice = z.output<typeof choiceSchema>;

/** A request that was checked and can be put as a chat. */
export interface ResponsesRequest {
  model: string;
  stream: boolean;
  instructions: string | undefined;
  items: readonly InputItem[];
  tools: readonly FunctionTool[];
  toolChoice: ToolChoice | undefined;
  parallelToolCalls: boolean | undefined;
  maxOutputTokens: number | undefined;
  format: TextFormat;
  verbosity: string | undefined;
  effort: string | undefined;
  /** Reasoning is told as a summary, as it was asked for; else as what it is. */
  summary: string | undefined;
  metadata: Readonly<Record<string, string>>;
  /** Alternatives wanted per token; undefined = no probabilities at all. */
  logprobs: number | undefined;
  shared: z.output<typeof sharedSchema>;
}

/**
 * Check the body of `POST /v1/responses`. What is not known has no effect; `store` neither: nothing is stored.
 * @throws AppError InvalidParams naming the field; ApiError 400 `unsupported_parameter` for what cannot be had here.
 */
export function parseResponsesRequest(input: unknown): ResponsesRequest {
  const body = parseInput(bodySchema, input);
  refuseUnsupported(body);
  const tools = (body.tools ?? []).map(parseTool);
  const wanted = body.include?.includes("message.output_text.logprobs") === true;
  return {
    model: body.model,
    stream: body.stream === true,
    instructions: body.instructions ?? undefined,
    items: parseInputItems(body.input),
    tools,
    toolChoice: parseToolChoice(body.tool_choice, tools),
    parallelToolCalls: body.parallel_tool_calls ?? undefined,
    maxOutputTokens: body.max_output_tokens ?? undefined,
    format: body.text?.format ?? { type: "text" },
    verbosity: body.text?.verbosity ?? undefined,
    effort: body.reasoning?.effort ?? undefined,
    summary: body.reasoning?.summary ?? body.reasoning?.generate_summary ?? undefined,
    metadata: body.metadata ?? {},
    logprobs: wanted ? (body.top_logprobs ?? 0) : body.top_logprobs || undefined,
    shared: sharedSchema.parse(body),
  };
}

function refuseUnsupported(body: Body): void {
  for (const [name, hint] of Object.entries(UNSUPPORTED)) {
    if (body[name] !== undefined && body[name] !== null) throw unsupported(name, hint);
  }
  if (body.background === true) {
    throw unsupported("background", "Leave it out and wait for the answer, or stream it.");
  }
  if ((body.truncation ?? "disabled") !== "disabled") {
    throw unsupported("truncation", "Only `disabled` is: send a shorter `input`.");
  }
}

function parseTool(tool: { type: string }, index: number): FunctionTool {
  const at = `tools[${index}]`;
  if (tool.type !== "function") {
    throw unsupported(`${at}.type`, "Only tools of type function are: run other tools yourself.");
  }
  return parseAt(functionSchema, tool, at);
}

function parseToolChoice(given: unknown, tools: readonly FunctionTool[]): ToolChoice | undefined {
  if (given === undefined || given === null) return undefined;
  const parsed = choiceSchema.safeParse(given);
  if (!parsed.success) {
    throw unsupported("tool_choice", 'Say none, auto, required or {"type": "function", "name": "..."}.');
  }
  const choice = parsed.data;
  if (choice === "required" && tools.length === 0) throw invalid("tool_choice", "needs `tools`");
  if (typeof choice === "object" && !tools.some((tool) => tool.name === choice.name)) {
    throw invalid("tool_choice", `there is no tool named "${choice.name}"`);
  }
  return choice;
}
