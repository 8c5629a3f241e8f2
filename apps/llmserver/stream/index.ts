import type { FastifyInstance, FastifyRequest } from "fastify";
import type { WebSocket } from "ws";
import { checkUpgrade, installWebSockets, upgradeBearer } from "#platform/http/websocket.ts";
import { toAppError } from "#schemas";
import { modelCaller } from "../access.ts";
import { ApiError } from "../api-error.ts";
import { sendApiError } from "../send-api-error.ts";
import type { LlmServer } from "../server.ts";
import { StreamSocket } from "./stream-socket.ts";

/** Sockets one user may have open here. */
const MAX_SOCKETS_PER_USER = 20;
/** Close codes of our own, 4000 + the HTTP status that says the same. */
const CLOSE = {
  goingAway: 1001,
  unauthenticated: 4401,
  forbidden: 4403,
  tooMany: 4429,
  failed: 1011,
} as const;
const BY_CODE: Readonly<Record<string, number>> = {
  Unauthenticated: CLOSE.unauthenticated,
  Forbidden: CLOSE.forbidden,
  RateLimited: CLOSE.tooMany,
};

/** `WebSocket /v1/stream`: the same requests as over HTTP, several at once on one connection (LLM-1). */
export async function registerStreamSocket(app: FastifyInstance, llm: LlmServer): Promise<void> {
  const sockets = new Map<StreamSocket, string>();
  await installWebSockets(app, {
    maxPayload: llm.config.limits.bodyBytes,
    closeAll() {
      for (const socket of sockets.keys()) socket.close(CLOSE.goingAway, "the server is shutting down");
    },
  });
  app.route({
    method: "GET",
    url: "/v1/stream",
    exposeHeadRoute: false,
    onRequest: async (request) => {
      checkUpgrade(request, llm.origins);
      const { bearer, from } = upgradeBearer(request);
      if (from === "header") await modelCaller(bearer, llm);
    },
    errorHandler: sendApiError,
    handler: async () => {
      throw new ApiError(426, "This address speaks WebSocket.", { code: "upgrade_required" });
    },
    wsHandler: (ws: WebSocket, request: FastifyRequest) => {
      const { bearer } = upgradeBearer(request);
      const socket = new StreamSocket(ws, { llm, bearer, log: llm.log });
      sockets.set(socket, "");
      ws.once("close", () => sockets.delete(socket));
      void admit(socket, bearer);
    },
  });

  /** A browser cannot read why an upgrade failed, only why a socket was closed: so the token is judged afterwards. */
  async function admit(socket: StreamSocket, bearer: string | undefined): Promise<void> {
    try {
      const { user_id } = await modelCaller(bearer, llm);
      const open = [...sockets.values()].filter((owner) => owner === user_id).length;
      if (open >= MAX_SOCKETS_PER_USER) {
        socket.close(CLOSE.tooMany, `you have ${open} connections open already`);
      } else if (sockets.has(socket)) {
        sockets.set(socket, user_id);
        socket.listen();
      }
    } catch (error) {
      const known = toAppError(error);
      socket.close(BY_CODE[known.code] ?? CLOSE.failed, known.message);
    }
  }
}
