import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { AppError, type ErrorCode, type ErrorDetails, toAppError } from "#schemas";

/** Every error leaves as `{error: {code, message, hint?, ...}}`; what was not foreseen is logged and told nothing of. */
export function installErrorHandling(app: FastifyInstance): void {
  app.setErrorHandler((error, request, reply) => sendError(reply, request, error));
  app.setNotFoundHandler((request, reply) => {
    // The path only: a query string can hold what must not be echoed into logs of others.
    const path = request.url.split("?", 1)[0];
    return sendError(reply, request, new AppError("NotFound", `There is no ${request.method} ${path}.`));
  });
}

/** Answer with an error in our envelope, and the headers that go with it. */
export function sendError(reply: FastifyReply, request: FastifyRequest, error: unknown): FastifyReply {
  const known = fromHttpError(error);
  if (known.httpStatus >= 500) {
    const level = known.code === "InternalError" ? "error" : "warn";
    request.log[level]({ err: known.cause ?? known }, "request failed");
  }
  return reply
    .code(known.httpStatus)
    .headers(errorHeaders(known))
    .type("application/json; charset=utf-8")
    .send(known.toHttp());
}

/** What an error says in headers, whatever envelope its body has. */
export function errorHeaders({ code, details }: AppError): Record<string, string> {
  const seconds = details.retry_after_seconds;
  return {
    ...(seconds === undefined ? {} : { "retry-after": String(Math.ceil(seconds)) }),
    ...(code === "Unauthenticated" ? { "www-authenticate": "Bearer" } : {}),
  };
}

/** What Fastify's own errors are to a caller. */
const FASTIFY_ERRORS: Record<string, [code: ErrorCode, message: string, details?: ErrorDetails]> = {
  FST_ERR_CTP_BODY_TOO_LARGE: ["PayloadTooLarge", "The body is too large."],
  FST_ERR_CTP_INVALID_MEDIA_TYPE: [
    "InvalidRequest",
    "This content type is not understood here.",
    { hint: "Send application/json." },
  ],
  FST_ERR_BAD_URL: ["InvalidRequest", "The path is not a valid URL."],
};

/** Also other people's errors that bear a status: 4xx is the request's fault. */
export function fromHttpError(error: unknown): AppError {
  if (error instanceof AppError || !isHttpError(error)) return toAppError(error);
  const [code, message, details] = FASTIFY_ERRORS[error.code] ?? byStatus(error);
  return code === "InternalError" ? toAppError(error) : new AppError(code, message, details, error);
}

function byStatus(error: FastifyError): [code: ErrorCode, message: string] {
  const status = error.statusCode ?? 500;
  if (status === 413) return ["PayloadTooLarge", "The body is too large."];
  if (status === 503) return ["Unavailable", "The server cannot serve at present."];
  return [status >= 400 && status < 500 ? "InvalidRequest" : "InternalError", error.message];
}

function isHttpError(error: unknown): error is FastifyError {
  return error instanceof Error && "statusCode" in error && typeof error.statusCode === "number";
}
