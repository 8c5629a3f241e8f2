import type { EngineBatch, EngineInfo, GenerateRequest, LoadOptions } from "../types.ts";

/** What the studio and an engine's process say to each other: one object a message, over the child's IPC channel. */

export interface EngineLimits {
  /** Requests that may wait for a sequence; more are refused with 429. */
  waiting: number;
}

/** What a model will need, told before anything big is allocated. */
export interface EngineEstimate {
  /** Resident memory once it is loaded and busy. */
  bytes: number;
  architecture: string;
  kind: "chat" | "embedding";
  context_size: number;
  sequences: number;
}

/**
 * Why a request was not served, in words for the one who asked: becomes an ApiError in the studio's process. The child
 * does not import that class, for it brings the whole contract and the HTTP layer along.
 */
export interface RefusedFields {
  status: number;
  message: string;
  code?: string | undefined;
  param?: string | undefined;
  retry_after_seconds?: number | undefined;
}

/** Why a model could not be loaded. */
export type LoadFailure = "InvalidModel" | "UnsupportedModel" | "OutOfMemory" | "EngineCrashed";

export type ToEngine =
  | { type: "load"; path: string; options: LoadOptions; limits: EngineLimits }
  | { type: "admitted" }
  | { type: "count"; id: number; request: GenerateRequest }
  | { type: "generate"; id: number; request: GenerateRequest }
  | { type: "embed"; id: number; inputs: readonly (string | readonly number[])[] }
  | { type: "cancel"; id: number }
  | { type: "ping"; beat: number };

export type FromEngine =
  | { type: "estimate"; estimate: EngineEstimate }
  | { type: "loaded"; info: EngineInfo }
  | { type: "failed"; code: LoadFailure; message: string }
  | { type: "counted"; id: number; tokens: number }
  | { type: "batch"; id: number; batch: EngineBatch }
  /** All choices have finished, or all have stopped after a cancel; nothing comes after it. */
  | { type: "done"; id: number }
  /** Base64 of little-endian float32, one per input: JSON is the quicker serialisation for all other messages. */
  | { type: "embedded"; id: number; vectors: string[]; input_tokens: number }
  | { type: "refused"; id: number; error: RefusedFields }
  | { type: "pong"; beat: number };
