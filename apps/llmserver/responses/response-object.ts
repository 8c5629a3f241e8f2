import type { ResponsesRequest } from "./request.ts";

type Json = Record<string, unknown>;

/** What is told of a response besides its request and its answer. */
export interface ResponseMeta {
  response_id: string;
  model: string;
  /** Seconds since 1970. */
  created: number;
}

/** Tokens, as they were charged. */
export interface ResponseUsage {
  input_tokens: number;
  output_tokens: number;
  cached_tokens: number;
}

/** How a response stands. */
export interface ResponseState {
  status: "in_progress" | "completed" | "incomplete" | "failed";
  output: Json[];
  error: Json | null;
  /** Why it is incomplete. */
  reason: "max_output_tokens" | "content_filter" | undefined;
  usage: Json | null;
}

/** OpenAI's Response: what was asked for, as it was understood, and what became of it. */
export function responseObject(request: ResponsesRequest, meta: ResponseMeta, state: ResponseState): Json {
  const { shared, format, verbosity, effort, summary } = request;
  const { user, safety_identifier, prompt_cache_key } = shared;
  return {
    id: meta.response_id,
    object: "response",
    created_at: meta.created,
    status: state.status,
    access_programs: null,
    background: false,
    error: state.error,
    incomplete_details: state.reason === undefined ? null : { reason: state.reason },
    instructions: request.instructions ?? null,
    max_output_tokens: request.maxOutputTokens ?? null,
    metadata: request.metadata,
    model: meta.model,
    output: state.output,
    parallel_tool_calls: request.parallelToolCalls ?? true,
    previous_response_id: null,
    reasoning: { effort: effort ?? null, summary: summary ?? null },
    store: false,
    temperature: shared.temperature ?? null,
    text: { format, ...(verbosity === undefined ? {} : { verbosity }) },
    tool_choice: request.toolChoice ?? "auto",
    tools: request.tools.map(({ type, name, description, parameters, strict }) => ({
      ...{ type, name, description: description ?? null },
      ...{ parameters: parameters ?? null, strict: strict ?? false },
    })),
    top_logprobs: request.logprobs ?? 0,
    top_p: shared.top_p ?? null,
    truncation: "disabled",
    usage: state.usage,
    ...(user == null ? {} : { user }),
    ...(safety_identifier == null ? {} : { safety_identifier }),
    ...(prompt_cache_key == null ? {} : { prompt_cache_key }),
  };
}

/** `reasoningTokens`: those of the output that were reasoning, as the provider counts them. */
export function usageObject(usage: ResponseUsage, reasoningTokens: number): Json {
  const { input_tokens, output_tokens, cached_tokens } = usage;
  return {
    input_tokens,
    input_tokens_details: { cached_tokens, cache_write_tokens: 0 },
    output_tokens,
    output_tokens_details: { reasoning_tokens: Math.min(reasoningTokens, output_tokens) },
    total_tokens: input_tokens + output_tokens,
  };
}

/** The codes OpenAI's Response knows and ours can have; everything else is the server's own trouble. */
const ERROR_CODES: ReadonlySet<string> = new Set(["rate_limit_exceeded"]);

export interface ResponseFailure {
  message: string;
  type: string;
  code: string | null;
}

/** An error as it stands in a Response. */
export function errorObject({ message, type, code }: ResponseFailure): Json {
  const known = code !== null && ERROR_CODES.has(code) ? code : "server_error";
  return { code: known, message, type, param: null };
}
