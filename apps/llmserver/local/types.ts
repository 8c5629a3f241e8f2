/** What the gateway asks of a local model and what comes back: plain data, so that it crosses to the engine's process. */

/** How a model is loaded (LLM-3). What is left out is decided at load time, see `docs/llm-api.md`. */
export interface LoadOptions {
  /** CPU threads; 1 unless told: llama.cpp's threads spin, and more of them than free cores stall each other. */
  threads?: number | undefined;
  /** Tokens one sequence can hold, prompt and answer together; never above what the model was trained for. */
  context_size?: number | undefined;
  /** Requests decoded together; each has `context_size` tokens of its own. */
  sequences?: number | undefined;
  /** Used where a request names none. */
  temperature?: number | undefined;
  /** Layers on the GPU: false = none (default), "auto" = as many as fit, or a number. */
  gpu?: false | "auto" | number | undefined;
}

/** A model as it was loaded. */
export interface EngineInfo {
  /** `general.architecture` of the file, e.g. `llama`. */
  architecture: string;
  kind: "chat" | "embedding";
  context_size: number;
  sequences: number;
  threads: number;
  /** Length of an embedding vector. */
  embedding_length: number;
  /** Of the vocabulary. */
  vocabulary: number;
  /** Whether the file brings a chat template of its own. */
  chat_template: boolean;
}

export interface Message {
  role: string;
  content?: unknown;
  [field: string]: unknown;
}

export interface Sampling {
  temperature?: number | undefined;
  top_p?: number | undefined;
  top_k?: number | undefined;
  min_p?: number | undefined;
  seed?: number | undefined;
  frequency_penalty?: number | undefined;
  presence_penalty?: number | undefined;
  repetition_penalty?: number | undefined;
  /** Token id to bias, -100 .. 100. */
  logit_bias?: Record<string, number> | undefined;
}

export type ResponseFormat =
  | { type: "text" }
  | { type: "json_object" }
  | { type: "json_schema"; schema: Record<string, unknown> };

export interface FunctionTool {
  name: string;
  description?: string | undefined;
  parameters?: Record<string, unknown> | undefined;
}

/** `none`, `auto`, `required`, or the name of the one function that must be called. */
export type ToolChoice = "none" | "auto" | "required" | { name: string };

interface GenerateCommon {
  sampling: Sampling;
  /** At most this many output tokens per choice; the caller has clamped it to what may be paid for. */
  max_tokens: number;
  stop: readonly string[];
  /** Choices, each on a sequence of its own. */
  n: number;
  /** How many alternatives per token; undefined = no logprobs at all. */
  logprobs?: number | undefined;
}

export interface ChatGenerate extends GenerateCommon {
  kind: "chat";
  messages: readonly Message[];
  tools: readonly FunctionTool[];
  tool_choice: ToolChoice;
  parallel_tool_calls: boolean;
  response_format: ResponseFormat;
}

export interface CompletionGenerate extends GenerateCommon {
  kind: "completion";
  /** Text, or the model's own token ids. */
  prompt: string | readonly number[];
  /** Fill-in-the-middle: what comes after the gap. */
  suffix?: string | undefined;
}

export type GenerateRequest = ChatGenerate | CompletionGenerate;

/** Exact figures by the model's own tokenizer, all choices together; the prompt counts once. */
export interface EngineUsage {
  input_tokens: number;
  /** Those of the input that were evaluated already (a prefix shared with an earlier request). */
  cached_tokens: number;
  output_tokens: number;
}

export interface TokenLogprob {
  /** Text of the token; may be half a character, see `bytes`. */
  token: string;
  bytes: number[];
  logprob: number;
  top: { token: string; bytes: number[]; logprob: number }[];
}

export type FinishReason = "stop" | "length" | "tool_calls";

/** One thing that happened while generating. `choice` is 0 .. n - 1. */
export type EngineEvent =
  | { type: "text"; choice: number; text: string; logprobs?: TokenLogprob[] }
  | { type: "reasoning"; choice: number; text: string }
  /** The first of a call carries its name; arguments come in pieces of JSON text. `index` counts the choice's calls. */
  | { type: "tool_call"; choice: number; index: number; name?: string; arguments: string }
  | { type: "finish"; choice: number; reason: FinishReason };

/** What became known since the last batch, with the usage up to its end. */
export interface EngineBatch {
  events: EngineEvent[];
  usage: EngineUsage;
}

export interface Embedded {
  /** One per input, normalised to length 1. */
  vectors: Float32Array[];
  input_tokens: number;
}

/** A model that is loaded, in a process of its own. */
export interface LoadedModel {
  readonly info: EngineInfo;
  readonly pid: number;
  /** Resident memory of its process, bytes; 0 once it is gone. */
  memoryBytes(): Promise<number>;
  /** Requests in work or waiting for a sequence. */
  readonly active: number;
  /**
   * Tokens of the prompt as it will be evaluated, template and tools included.
   * @throws ApiError 400 naming what this model cannot do; 400 `context_length_exceeded`; 503 when its process died.
   */
  count(request: GenerateRequest, signal: AbortSignal): Promise<number>;
  /**
   * Generate; ends after every choice finished. Leaving the loop, or aborting, cancels within a decode step, also while
   * the prompt is evaluated.
   * @throws ApiError 429 `engine_overloaded` when too many wait; 503 `engine_crashed` (retryable) when its process died;
   * the signal's reason.
   */
  generate(request: GenerateRequest, signal: AbortSignal): AsyncIterable<EngineBatch>;
  /** @throws ApiError as above; 400 when an input is longer than the context. */
  embed(inputs: readonly (string | readonly number[])[], signal: AbortSignal): Promise<Embedded>;
  /** Resolves with the reason when its process has ended, wanted or not. */
  readonly closed: Promise<{ wanted: boolean; reason: string }>;
  /** End it: requests in flight fail with 503 `model_unloaded`. Idempotent. */
  close(): Promise<void>;
}
