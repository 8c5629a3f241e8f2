import websocket from "@fastify/websocket";
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { WebSocket } from "ws";
import { bearerOf } from "#platform/http/index.ts";
import type { Log } from "#platform/log.ts";
import { AppError, toAppError } from "#schemas";
import type { Api } from "../api.ts";
import { type Identity, refuseTokenInUrl } from "../gate.ts";
import { CLOSE, RpcSocket } from "./socket.ts";

/** What a browser asks for to be answered: its own subprotocols may carry the token, ours carries nothing. */
const SUBPROTOCOL = "cds.v1";
const BEARER_PREFIX = "bearer.";

interface Credentials {
  readonly bearer: string | undefined;
  readonly identity: Identity;
}

/** `GET /ws`: the same methods as `POST /rpc`, and notifications. */
export async function registerSocketRoute(app: FastifyInstance, api: Api): Promise<void> {
  const sockets = new Set<RpcSocket>();
  await app.register(websocket, {
    options: {
      maxPayload: api.config.limits.bodyBytes,
      // Compression costs 300 kB per connection; what is large here is read over HTTP.
      perMessageDeflate: false,
      handleProtocols: (offered: Set<string>) => (offered.has(SUBPROTOCOL) ? SUBPROTOCOL : false),
    },
    preClose(done) {
      for (const socket of sockets) socket.close(CLOSE.goingAway, "the server is shutting down");
      this.websocketServer.close();
      done();
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
  refuseTokenInUrl(request.query);
  const { origin, host, authorization } = request.headers;
  if (!api.origins.allowsRequest(origin, host)) {
    throw new AppError("Forbidden", "Pages of this origin may not connect.", {
      hint: "Add the origin to CDS_ALLOWED_ORIGINS.",
    });
  }
  if (authorization !== undefined) {
    const bearer = bearerOf(authorization);
    return { bearer, identity: { caller: await api.gate.authenticate(bearer) } };
  }
  // A browser cannot read why an upgrade failed, only why a socket was closed: that comes afterwards.
  const bearer = bearerOfSubprotocol(request.headers["sec-websocket-protocol"]);
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

function bearerOfSubprotocol(header: string | undefined): string | undefined {
  const offered = (header ?? "").split(",").map((name) => name.trim());
  return offered.find((name) => name.startsWith(BEARER_PREFIX))?.slice(BEARER_PREFIX.length);
}
