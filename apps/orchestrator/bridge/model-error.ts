import { asObject } from "#platform/json.ts";
import type { ErrorCode, TaskError } from "#schemas";

const MAX_MESSAGE_CHARS = 500;

/** The model server speaks OpenAI's names on this route; the owner of a task reads ours. */
const BY_NAME: Readonly<Record<string, ErrorCode>> = {
  insufficient_quota: "InsufficientBalance",
  model_not_found: "ModelNotFound",
  no_provider_key: "NoProviderKey",
  rate_limit_exceeded: "RateLimited",
  request_too_large: "PayloadTooLarge",
  unavailable: "Unavailable",
  internal_error: "InternalError",
};

const BY_STATUS: Readonly<Record<number, ErrorCode>> = {
  402: "InsufficientBalance",
  413: "PayloadTooLarge",
  429: "RateLimited",
  503: "Unavailable",
  504: "ProviderTimeout",
};

const HINTS: Partial<Record<ErrorCode, string>> = {
  InsufficientBalance: "Ask an administrator for a higher balance, or raise CDS_TASK_BUDGET.",
  RateLimited: "Wait a moment and dispatch the task again.",
  Unavailable: "Dispatch the task again in a moment.",
  ProviderError: "The model's provider failed; dispatch the task again, or choose another model.",
  ProviderTimeout: "The model's provider is slow or away; dispatch the task again, or choose another model.",
  NoProviderKey: "Set one with provider.set or OPENAI_API_KEY.",
};

/**
 * What opencode is told of any failure. Not what happened: it tries again, silently and for minutes, on words
 * like "overloaded" or "rate limit" and on the type "server_error", whatever the status.
 */
export const FINAL_ERROR = {
  error: {
    message: "The model call failed for good.",
    type: "invalid_request_error",
    param: null,
    code: null,
  },
} as const;

/** One failure of a model call with the hint that belongs to it. */
export function modelError(code: ErrorCode, message: string): TaskError {
  const hint = HINTS[code];
  const short = message.length > MAX_MESSAGE_CHARS ? `${message.slice(0, MAX_MESSAGE_CHARS)}…` : message;
  return { code, message: short, ...(hint === undefined || short.includes(hint) ? {} : { hint }) };
}

/** What it means that a call threw, or that its answer did half-way. */
export function fromThrown(error: unknown, answering: boolean): TaskError {
  const name = asObject(error)?.code;
  if (name === "UND_ERR_HEADERS_TIMEOUT" || name === "UND_ERR_BODY_TIMEOUT") {
    return modelError("ProviderTimeout", "The model did not answer in time.");
  }
  return answering
    ? modelError("ProviderError", "The model's answer broke off.")
    : modelError("Unavailable", "The model server cannot be reached.");
}

/** What an error answer of the model server means; `body` is what it said, JSON or not. */
export function fromErrorAnswer(status: number, body: string): TaskError {
  let told: unknown;
  try {
    told = JSON.parse(body);
  } catch {
    // Not JSON: the status has to do.
  }
  return fromErrorObject(asObject(told)?.error, status);
}

/** The same for the `error` member alone, as a broken stream carries it. */
export function fromErrorObject(error: unknown, status = 502): TaskError {
  const fields = asObject(error);
  const message = typeof fields?.message === "string" ? fields.message : undefined;
  const name = typeof fields?.code === "string" ? fields.code : "";
  const code = BY_NAME[name] ?? BY_STATUS[status] ?? "ProviderError";
  return modelError(code, message ?? `The model call failed with status ${status}.`);
}
