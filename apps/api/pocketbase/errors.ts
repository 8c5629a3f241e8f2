import type { FastifyReply, FastifyRequest } from "fastify";
import { errorHeaders, fromHttpError } from "#platform/http/index.ts";
import type { AppError } from "#schemas";

/** PocketBase's envelope: `{status, message, data: {field: {code, message}}}`. */
export function sendPocketbaseError(
  error: unknown,
  request: FastifyRequest,
  reply: FastifyReply,
): FastifyReply {
  const known = fromHttpError(error);
  if (known.code === "InternalError") request.log.error({ err: known.cause ?? known }, "request failed");
  // A name that is taken is a validation error there.
  const status = known.code === "Conflict" ? 400 : known.httpStatus;
  return reply
    .code(status)
    .headers(errorHeaders(known))
    .send({ status, message: messageOf(known), data: fieldsOf(known) });
}

function messageOf(error: AppError): string {
  if (error.code === "Unauthenticated")
    return "The request requires valid record authorization token to be set.";
  return error.message;
}

function fieldsOf(error: AppError): Record<string, { code: string; message: string }> {
  if (error.code === "Conflict") {
    return { username: { code: "validation_not_unique", message: error.message } };
  }
  const issues = error.details.issues ?? [];
  return Object.fromEntries(
    issues.map(({ path, message }) => [path, { code: "validation_invalid_value", message }]),
  );
}
