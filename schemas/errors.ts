/**
 * The error catalogue: every failure a caller can see has one of these names (`data.code` of a JSON-RPC
 * error, `error.code` of an HTTP answer), one JSON-RPC number and one HTTP status.
 * Numbers -32700..-32603 are those of JSON-RPC 2.0 section 5.1; ours lie in its server range.
 */
export const ERRORS = {
  ParseError: { rpc: -32700, http: 400 },
  InvalidRequest: { rpc: -32600, http: 400 },
  MethodNotFound: { rpc: -32601, http: 404 },
  InvalidParams: { rpc: -32602, http: 400 },
  InternalError: { rpc: -32603, http: 500 },
  Unauthenticated: { rpc: -32001, http: 401 },
  Forbidden: { rpc: -32003, http: 403 },
  NotFound: { rpc: -32004, http: 404 },
  Conflict: { rpc: -32009, http: 409 },
  PayloadTooLarge: { rpc: -32013, http: 413 },
  QuotaExceeded: { rpc: -32014, http: 413 },
  InvalidArchive: { rpc: -32015, http: 400 },
  RateLimited: { rpc: -32029, http: 429 },
  InsufficientBalance: { rpc: -32402, http: 402 },
  BudgetExceeded: { rpc: -32405, http: 402 },
  NoProviderKey: { rpc: -32403, http: 400 },
  ModelNotFound: { rpc: -32404, http: 404 },
  ProviderError: { rpc: -32502, http: 502 },
  ProviderTimeout: { rpc: -32504, http: 504 },
  Unavailable: { rpc: -32503, http: 503 },
  EngineUnavailable: { rpc: -32505, http: 503 },
  Timeout: { rpc: -32508, http: 504 },
  Cancelled: { rpc: -32499, http: 409 },
  RunFailed: { rpc: -32510, http: 500 },
  ResultInvalid: { rpc: -32511, http: 422 },
  DownloadFailed: { rpc: -32520, http: 502 },
  InvalidModel: { rpc: -32521, http: 422 },
  OutOfFuel: { rpc: -32530, http: 422 },
  WasmTrap: { rpc: -32531, http: 422 },
  InvalidModule: { rpc: -32532, http: 422 },
} as const satisfies Record<string, { rpc: number; http: number }>;

export type ErrorCode = keyof typeof ERRORS;

/** One thing wrong with one field: `path` as in `params.files[0].path`. */
export interface FieldIssue {
  path: string;
  message: string;
}

/** What travels with an error beyond its code and message. */
export interface ErrorDetails {
  /** What the reader can do about it. */
  hint?: string;
  /** Which fields are wrong, for InvalidParams. */
  issues?: FieldIssue[];
  /** Seconds after which trying again makes sense. */
  retry_after_seconds?: number;
  /** Further facts, safe to show to the caller. */
  [key: string]: unknown;
}

/** The only error type thrown on purpose: named, with a hint, safe to show to the caller as it is. */
export class AppError extends Error {
  readonly code: ErrorCode;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "AppError";
    this.code = code;
    this.details = details;
  }

  get rpcCode(): number {
    return ERRORS[this.code].rpc;
  }

  get httpStatus(): number {
    return ERRORS[this.code].http;
  }

  /** The JSON-RPC `error` member (section 5.1). */
  toRpc(): { code: number; message: string; data: ErrorDetails & { code: ErrorCode } } {
    return { code: this.rpcCode, message: this.message, data: { ...this.details, code: this.code } };
  }

  /** The body of a plain HTTP error answer. */
  toHttp(): { error: ErrorDetails & { code: ErrorCode; message: string } } {
    return { error: { ...this.details, code: this.code, message: this.message } };
  }
}

/** Narrow anything thrown to an AppError; what is not one becomes an InternalError that tells nothing. */
export function toAppError(error: unknown): AppError {
  if (error instanceof AppError) return error;
  return new AppError(
    "InternalError",
    "Something went wrong on the server.",
    { hint: "Try again; the server's log has the details." },
    error,
  );
}
