import { AppError, ERRORS, type ErrorCode, type ErrorDetails } from "../errors.ts";

const BY_RPC_NUMBER = new Map<number, ErrorCode>(
  Object.entries(ERRORS).map(([name, { rpc }]) => [rpc, name as ErrorCode]),
);
/** For answers that are not ours: a proxy's page, say. */
const BY_STATUS: Record<number, ErrorCode> = {
  401: "Unauthenticated",
  403: "Forbidden",
  404: "NotFound",
  413: "PayloadTooLarge",
  429: "RateLimited",
  502: "Unavailable",
  503: "Unavailable",
  504: "Unavailable",
};

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === "string" && Object.hasOwn(ERRORS, value);
}

/** Rebuild the AppError that a server sent as a JSON-RPC `error` member or as `{error: {code, message}}`. */
export function errorFromWire(error: unknown): AppError {
  if (!isRecord(error)) return new AppError("InternalError", "The server sent an answer without meaning.");
  const data = isRecord(error.data) ? error.data : error;
  const { code, message: _, ...details } = data;
  const number = typeof error.code === "number" ? BY_RPC_NUMBER.get(error.code) : undefined;
  const name = isErrorCode(code) ? code : (number ?? "InternalError");
  const message = typeof error.message === "string" ? error.message : name;
  return new AppError(name, message, details as ErrorDetails);
}

/** The error of an HTTP answer whose body may or may not be one of ours. */
export function errorFromHttp(status: number, body: unknown, retryAfter: string | null): AppError {
  if (isRecord(body) && isRecord(body.error)) return errorFromWire(body.error);
  const seconds = Number(retryAfter ?? "");
  const details = seconds > 0 ? { retry_after_seconds: seconds } : {};
  return new AppError(
    BY_STATUS[status] ?? "InternalError",
    `The server answered with status ${status}.`,
    details,
  );
}

/** What a failed `fetch` means to the caller. */
export function errorFromFetch(error: unknown, signal: AbortSignal | undefined): AppError {
  if (error instanceof AppError) return error;
  if (signal?.aborted === true) return new AppError("Cancelled", "The call was cancelled.", {}, error);
  if (error instanceof DOMException && error.name === "TimeoutError") {
    return new AppError("Timeout", "The server did not answer in time.", {}, error);
  }
  return new AppError("Unavailable", "The server cannot be reached.", {}, error);
}

export interface RpcResponse {
  readonly id: string | number | null;
  readonly result?: unknown;
  readonly error?: unknown;
}

export function isResponse(value: unknown): value is RpcResponse {
  return (
    isRecord(value) &&
    value.jsonrpc === "2.0" &&
    (Object.hasOwn(value, "result") || Object.hasOwn(value, "error"))
  );
}

/** A message the server sends unasked. */
export interface Notification {
  readonly method: string;
  readonly params: Record<string, unknown>;
}

export function isNotification(value: unknown): value is Notification {
  return isRecord(value) && typeof value.method === "string" && isRecord(value.params);
}
