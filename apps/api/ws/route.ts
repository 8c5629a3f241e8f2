import type { FastifyInstance, FastifyRequest } from "fastify";
import type { WebSocket } from "ws";
import { checkUpgrade, installWebSockets, upgradeBearer } from "#platform/http/websocket.ts";
import type { Log } from "#platform/log.ts";
import { AppError, toAppError } from "#schemas";
import type { Api } from "../api.ts";
import type { Identity } from "../gate.ts";
import { CLOSE, RpcSocket } from "./socket.ts";

interface Credentials {
  readonly bearer: string | undefined;
  readonly identity: Identity;
}

/** `GET /ws`: the same methods as `POST /rpc`, and notifications. */
export async function registerSocketRoute(app: FastifyInstance, api: Api): Promise<void> {
  const sockets = new Set<RpcSocket>();
  await installWebSockets(app, {
    maxPayload: api.config.limits.bodyBytes,
    closeAll() {
      for (const socket of sockets) socket.close(CLOSE.goingAway, "the server is shutting down");
    },
  });
  const known = new WeakMap<FastifyRequest, Credentials>();
  app.route({
    method: "GET",
    url: "/ws",
    exposeHeadRoute: false,
    onRequest: async (request) => {
      known.set(request, await admit(api, request));
    },
    handler: async () => {
      throw new AppError("InvalidRequest", "This address speaks WebSocket.", {
        hint: "Use POST /rpc over HTTP.",
      });
    },
    wsHandler: (ws, request) => {
      const credentials = known.get(request);
      if (credentials !== undefined) accept(api, sockets, ws, request, credentials);
    },
  });
}

/** @throws AppError before the upgrade, so that it is answered as plain HTTP. */
async function admit(api: Api, request: FastifyRequest): Promise<Credentials> {
  checkUpgrade(request, api.origins);
  const { bearer, from } = upgradeBearer(request);
  if (from === "header") return { bearer, identity: { caller: await api.gate.authenticate(bearer) } };
  // A browser cannot read why an upgrade failed, only why a socket was closed: that comes afterwards.
  return { bearer, identity: bearer === undefined ? {} : await api.gate.identify(bearer) };
}

function accept(
  api: Api,
  sockets: Set<RpcSocket>,
  ws: WebSocket,
  request: FastifyRequest,
  { bearer, identity }: Credentials,
): void {
  const socket = new RpcSocket(ws, api, { log: request.log as Log, address: request.ip });
  sockets.add(socket);
  ws.once("close", () => sockets.delete(socket));
  try {
    if (identity.error !== undefined) throw identity.error;
    if (identity.caller !== undefined && bearer !== undefined) socket.signedIn(identity.caller, bearer);
  } catch (thrown) {
    const error = toAppError(thrown);
    const code = { Unauthenticated: CLOSE.unauthenticated, RateLimited: CLOSE.tooMany }[error.code as string];
    socket.close(code ?? 1011, error.message);
  }
}
