import { AppError } from "#schemas";
import type { ModelRequest } from "./request.ts";

/** Where a request goes below a provider's base URL. */
export const UPSTREAM_PATHS = {
  chat: "chat/completions",
  completion: "completions",
  embedding: "embeddings",
} as const satisfies Record<ModelRequest["kind"], string>;

const SAMPLING = [
  ...["temperature", "top_p", "top_k", "min_p", "stop", "seed", "logit_bias", "logprobs", "top_logprobs"],
  ...["presence_penalty", "frequency_penalty", "repetition_penalty", "max_tokens", "n", "user"],
  ...["model", "stream", "stream_options"],
];
/**
 * What may be asked for with the server's own key: how to answer. Whatever else a provider or a proxy understands
 * (another or a dearer model as `models`, `fallbacks`, `service_tier`; somewhere else to send the key as `api_base`;
 * searches and plug-ins) is neither limited by the list of models nor paid for by tokens.
 */
const WITH_SERVER_KEY: Readonly<Record<ModelRequest["kind"], ReadonlySet<string>>> = {
  chat: new Set([
    ...SAMPLING,
    ...["messages", "max_completion_tokens", "response_format", "verbosity"],
    ...["tools", "tool_choice", "parallel_tool_calls", "functions", "function_call"],
    ...["reasoning", "reasoning_effort", "thinking", "chat_template_kwargs"],
  ]),
  completion: new Set([...SAMPLING, "prompt", "suffix", "best_of", "echo"]),
  embedding: new Set(["model", "input", "encoding_format", "dimensions", "user"]),
};
/** Tools the caller runs; others are run, and charged for, by the provider. */
const CALLERS_TOOLS: ReadonlySet<string> = new Set(["function", "custom"]);

/**
 * The body for the provider: usage always asked for, output tokens limited under the name the client used (OpenAI's
 * newer models only know `max_completion_tokens`, most others only `max_tokens`). With the server's key it has only
 * what that is for; with a user's own, everything goes to the provider as it came.
 * @throws AppError InvalidParams for a tool that the provider would run with the server's key.
 */
export function upstreamBody(
  request: ModelRequest,
  maxTokens: number,
  { base_url, trusted }: { base_url: string; trusted: boolean },
): Record<string, unknown> {
  const { body, kind, stream } = request;
  if (trusted) refuseProvidersTools(request);
  const result: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(body)) {
    if (!trusted || WITH_SERVER_KEY[kind].has(name)) result[name] = value;
  }
  if (kind !== "embedding") for (const name of limitNames(request, base_url)) result[name] = maxTokens;
  if (stream) result.stream_options = { ...asOptions(body.stream_options), include_usage: true };
  return result;
}

function asOptions(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? { ...value } : {};
}

function limitNames({ body, kind }: ModelRequest, base_url: string): string[] {
  if (kind === "completion") return ["max_tokens"];
  const given = ["max_tokens", "max_completion_tokens"].filter((name) => typeof body[name] === "number");
  if (given.length > 0) return given;
  return [new URL(base_url).hostname === "api.openai.com" ? "max_completion_tokens" : "max_tokens"];
}

function refuseProvidersTools(request: ModelRequest): void {
  if (request.kind !== "chat") return;
  if (request.body.tools?.some(({ type }) => !CALLERS_TOOLS.has(type)) !== true) return;
  const message = "Tools that the provider runs cannot be used with the server's key.";
  throw new AppError("InvalidParams", message, { issues: [{ path: "tools", message }] });
}
