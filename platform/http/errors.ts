import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { AppError, type ErrorDetails, toAppError } from "#schemas";

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
  if (known.code === "InternalError") {
    request.log.error({ err: known.cause ?? known }, "request failed");
  }
  if (known.details.retry_after_seconds !== undefined) {
    reply.header("retry-after", String(Math.ceil(known.details.retry_after_seconds)));
  }
  if (known.code === "Unauthenticated") reply.header("www-authenticate", "Bearer");
  return reply.code(known.httpStatus).type("application/json; charset=utf-8").send(known.toHttp());
}

/** Also Fastify's own errors by name; any other error of status 4xx is the request's fault. */
export function fromHttpError(error: unknown): AppError {
  if (error instanceof AppError || !isHttpError(error)) return toAppError(error);
  const details: ErrorDetails = {};
  switch (error.code) {
    case "FST_ERR_CTP_BODY_TOO_LARGE":
      return new AppError("PayloadTooLarge", "The body is too large.", details, error);
    case "FST_ERR_CTP_INVALID_MEDIA_TYPE":
      details.hint = "Send application/json.";
      return new AppError("InvalidRequest", "This content type is not understood here.", details, error);
    case "FST_ERR_BAD_URL":
      return new AppError("InvalidRequest", "The path is not a valid URL.", details, error);
    case "FST_ERR_CTP_INVALID_CONTENT_LENGTH":
      return new AppError(
        "InvalidRequest",
        "The body is not as long as Content-Length says.",
        details,
        error,
      );
    default:
      break;
  }
  const status = error.statusCode ?? 500;
  if (status === 503) return new AppError("Unavailable", "The server is shutting down.", details, error);
  if (status === 413) return new AppError("PayloadTooLarge", "The body is too large.", details, error);
  if (status >= 400 && status < 500) return new AppError("InvalidRequest", error.message, details, error);
  return toAppError(error);
}

function isHttpError(error: unknown): error is FastifyError {
  return error instanceof Error && "statusCode" in error && typeof error.statusCode === "number";
}
