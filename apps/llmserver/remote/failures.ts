import { isObject } from "#platform/json.ts";
import { ApiError } from "../api-error.ts";
import type { Redactor } from "./redact.ts";

/** What a provider's own words may take up in an answer of ours. */
const MAX_MESSAGE = 2000;
/** Longer waits are the caller's to decide about: a silent sleep of minutes looks like a hang. */
const LONGEST_RETRY_AFTER_SECONDS = 5;
const RETRIED = new Set([429, 500, 502, 503, 504]);
const BROKEN_CONNECTION = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "EPIPE",
  "ETIMEDOUT",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOTFOUND",
  "EAI_AGAIN",
  "UND_ERR_SOCKET",
  "UND_ERR_CONNECT_TIMEOUT",
]);

/** A failed attempt: what the caller is told, and whether another attempt may help. */
export interface Failure {
  error: ApiError;
  retry: boolean;
  /** Wait this long before another attempt, s. */
  afterSeconds?: number;
  /** It says something about the provider's health. */
  providersFault: boolean;
}

/** No connection, or none long enough for an answer. `code` is all that is told of the cause. */
export function connectionFailure(error: unknown): Failure {
  const code = isObject(error) && typeof error.code === "string" ? error.code : "unknown";
  if (code === "CDS_REFUSED_ADDRESS") {
    const message =
      "The provider's address is not allowed: it is link-local, or private and those are forbidden.";
    const refused = new ApiError(400, message, { code: "provider_address_refused" });
    return { error: refused, retry: false, providersFault: false };
  }
  const unreachable = new ApiError(502, `The provider cannot be reached (${code}).`, {
    type: "server_error",
    code: "provider_unreachable",
    shouldRetry: false,
    cause: code,
  });
  return { error: unreachable, retry: BROKEN_CONNECTION.has(code), providersFault: true };
}

/** The provider answered with another status than 200. */
export function statusFailure(
  status: number,
  retryAfter: unknown,
  text: string,
  redactor: Redactor,
): Failure {
  if (status >= 300 && status < 400) {
    const error = new ApiError(502, "The provider answered with a redirect, which is not followed.", {
      code: "provider_redirect",
      shouldRetry: false,
    });
    return { error, retry: false, providersFault: false };
  }
  const told = errorFields(text, redactor);
  const seconds = retryAfterSeconds(retryAfter);
  const retry =
    RETRIED.has(status) &&
    told.code !== "insufficient_quota" &&
    (seconds === undefined || seconds <= LONGEST_RETRY_AFTER_SECONDS);
  const known = status >= 400 && status < 600 ? status : 502;
  const error = new ApiError(known, sentence(known, told.message), {
    type: told.type ?? (known < 500 ? "invalid_request_error" : "server_error"),
    code: told.code ?? "provider_error",
    param: told.param ?? null,
    ...(known === 429 && seconds !== undefined ? { retryAfterSeconds: seconds } : {}),
    // Our own attempts are used up: a client's would only multiply them.
    ...(known >= 500 ? { shouldRetry: false } : {}),
  });
  const failure: Failure = { error, retry, providersFault: known >= 500 };
  if (seconds !== undefined) failure.afterSeconds = seconds;
  return failure;
}

function sentence(status: number, message: string | undefined): string {
  const detail = message ?? `status ${status}`;
  if (status === 401 || status === 403) return `The provider refused its key: ${detail}`;
  return `The provider answered: ${detail}`;
}

/** The fields of an error object, wherever providers put them, without the key. */
export function errorFields(source: unknown, redactor: Redactor) {
  const parsed = typeof source === "string" ? parse(source) : source;
  const outer = Array.isArray(parsed) ? parsed[0] : parsed;
  const inner = isObject(outer) ? (outer.error ?? outer) : undefined;
  const field = (name: string): string | undefined => {
    const value = isObject(inner) ? inner[name] : undefined;
    if (typeof value !== "string" && typeof value !== "number") return undefined;
    return redactor.text(String(value).slice(0, MAX_MESSAGE));
  };
  const message = typeof inner === "string" ? redactor.text(inner.slice(0, MAX_MESSAGE)) : field("message");
  return { message, type: field("type"), code: field("code"), param: field("param") };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Seconds, from either form of the header. */
export function retryAfterSeconds(header: unknown): number | undefined {
  if (typeof header !== "string" || header === "") return undefined;
  const seconds = Number(header);
  if (Number.isFinite(seconds)) return Math.max(0, seconds);
  const at = Date.parse(header);
  return Number.isNaN(at) ? undefined : Math.max(0, (at - Date.now()) / 1000);
}
