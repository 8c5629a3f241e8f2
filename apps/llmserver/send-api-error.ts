import type { FastifyReply, FastifyRequest } from "fastify";
import { toApiError } from "./api-error.ts";

/** Answer with an error in OpenAI's envelope, and the headers that go with it. */
export function sendApiError(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const known = toApiError(error);
  if (known.status === 500)
    request.log.error({ err: known.options.cause ?? error }, "a model request failed");
  return reply
    .code(known.status)
    .headers(known.headers())
    .type("application/json; charset=utf-8")
    .send(known.envelope());
}
