import { fromHttpError } from "#platform/http/errors.ts";
import { AppError, type ErrorCode } from "#schemas";

/** What an OpenAI client reads of an error. */
export interface ErrorEnvelope {
  error: { message: string; type: string; param: string | null; code: string | null };
}

export interface ApiErrorOptions {
  type?: string;
  code?: string | null;
  param?: string | null;
  /** Sent as Retry-After. */
  retryAfterSeconds?: number;
  /** Tells OpenAI clients whether trying again makes sense; unset = they judge by the status. */
  shouldRetry?: boolean;
  cause?: unknown;
}

/** An error in OpenAI's words, safe to show as it is. */
export class ApiError extends Error {
  readonly status: number;
  readonly options: ApiErrorOptions;

  constructor(status: number, message: string, options: ApiErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "ApiError";
    this.status = status;
    this.options = options;
  }

  envelope(): ErrorEnvelope {
    const { type, param, code } = this.options;
    return {
      error: {
        message: this.message,
        type: type ?? (this.status < 500 ? "invalid_request_error" : "server_error"),
        param: param ?? null,
        code: code ?? null,
      },
    };
  }

  headers(): Record<string, string> {
    const { retryAfterSeconds, shouldRetry } = this.options;
    return {
      ...(retryAfterSeconds === undefined ? {} : { "retry-after": String(Math.ceil(retryAfterSeconds)) }),
      ...(shouldRetry === undefined ? {} : { "x-should-retry": String(shouldRetry) }),
      ...(this.status === 401 ? { "www-authenticate": "Bearer" } : {}),
    };
  }
}

/** OpenAI's own names for our catalogue; the status stays the catalogue's. */
const NAMES: Partial<Record<ErrorCode, { type: string; code: string }>> = {
  Unauthenticated: { type: "invalid_request_error", code: "invalid_api_key" },
  Forbidden: { type: "invalid_request_error", code: "permission_denied" },
  InsufficientBalance: { type: "insufficient_quota", code: "insufficient_quota" },
  BudgetExceeded: { type: "insufficient_quota", code: "budget_exceeded" },
  ModelNotFound: { type: "invalid_request_error", code: "model_not_found" },
  NoProviderKey: { type: "invalid_request_error", code: "no_provider_key" },
  RateLimited: { type: "rate_limit_error", code: "rate_limit_exceeded" },
  PayloadTooLarge: { type: "invalid_request_error", code: "request_too_large" },
  Unavailable: { type: "server_error", code: "unavailable" },
  InternalError: { type: "server_error", code: "internal_error" },
};

/** Anything thrown, in OpenAI's words; what was not thrown on purpose tells nothing. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  const known = error instanceof AppError ? error : fromHttpError(error);
  const { hint, issues, retry_after_seconds } = known.details;
  const param = known.code === "ModelNotFound" ? "model" : issues?.[0]?.path;
  return new ApiError(known.httpStatus, hint === undefined ? known.message : `${known.message} ${hint}`, {
    ...NAMES[known.code],
    ...(param === undefined ? {} : { param }),
    ...(retry_after_seconds === undefined ? {} : { retryAfterSeconds: retry_after_seconds }),
    cause: known.cause ?? error,
  });
}

/** The caller went away: nobody reads this one. */
export class ClientGone extends ApiError {
  constructor() {
    super(499, "The client closed the connection.", { code: "client_closed_request" });
    this.name = "ClientGone";
  }
}
