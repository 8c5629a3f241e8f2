import { Readable } from "node:stream";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { bearerOf, errorHeaders, fromHttpError } from "#platform/http/index.ts";
import type { Log } from "#platform/log.ts";
import { AppError } from "#schemas";
import type { Api } from "../api.ts";
import { ANONYMOUS_BYTES, type Identity } from "../gate.ts";
import type { Session } from "../rpc/engine.ts";
import { errorText } from "../rpc/message.ts";
import { readBody } from "./body.ts";

/** `POST /rpc`: one JSON-RPC message per request; every failure is a JSON-RPC error with a fitting status. */
export async function registerRpcRoute(app: FastifyInstance, api: Api): Promise<void> {
  await app.register((scope, _options, done) => {
    // The engine parses: whatever the content type says, a message is judged by its bytes.
    scope.removeAllContentTypeParsers();
    scope.addContentTypeParser("*", (_request, payload, parsed) => parsed(null, payload));
    scope.setErrorHandler((error, request, reply) => {
      const known = fromHttpError(error);
      if (known.code === "InternalError") request.log.error({ err: known.cause ?? known }, "request failed");
      return sendError(reply, known);
    });
    scope.post("/rpc", (request, reply) => answer(api, request, reply));
    done();
  });
}

async function answer(api: Api, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const { authorization } = request.headers;
  const identity = await api.gate.identify(bearerOf(authorization));
  const bytes = await bodyOf(api, request, reply, identity);
  const { text, error } = await api.engine.handle(bytes, sessionOf(api, request, reply, identity));
  if (text === undefined) return reply.code(204).send();
  if (error !== undefined) reply.headers(errorHeaders(error));
  return reply
    .code(error?.httpStatus ?? 200)
    .header("cache-control", "no-store")
    .type("application/json; charset=utf-8")
    .send(text);
}

async function bodyOf(
  api: Api,
  request: FastifyRequest,
  reply: FastifyReply,
  identity: Identity,
): Promise<Uint8Array> {
  if (!(request.body instanceof Readable)) return new Uint8Array();
  const limit = api.config.limits.bodyBytes;
  try {
    return await readBody(
      request.body,
      identity.caller === undefined ? Math.min(limit, ANONYMOUS_BYTES) : limit,
    );
  } catch (error) {
    reply.header("connection", "close");
    const unread = error instanceof AppError && error.code === "PayloadTooLarge";
    throw unread && identity.error !== undefined ? identity.error : error;
  }
}

function sessionOf(api: Api, request: FastifyRequest, reply: FastifyReply, identity: Identity): Session {
  const gone = new AbortController();
  reply.raw.once("close", () => {
    if (!reply.raw.writableFinished) gone.abort(new AppError("Cancelled", "The caller has gone."));
  });
  const log = request.log as Log;
  return {
    caller: async () => {
      if (identity.caller !== undefined) return identity.caller;
      throw identity.error ?? new AppError("Unauthenticated", "Sign in first.");
    },
    admit: () => api.gate.admit(identity.caller, request.ip),
    signal: gone.signal,
    log: identity.caller === undefined ? log : log.child({ user_id: identity.caller.user_id }),
  };
}

function sendError(reply: FastifyReply, error: AppError): FastifyReply {
  return reply
    .code(error.httpStatus)
    .headers(errorHeaders(error))
    .type("application/json; charset=utf-8")
    .send(errorText(null, error));
}
