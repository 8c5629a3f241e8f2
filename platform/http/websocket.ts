import websocket from "@fastify/websocket";
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { WebSocket } from "ws";
import { AppError } from "#schemas";
import { bearerOf } from "./caller.ts";
import type { Origins } from "./origins.ts";

/** What a browser asks for to be answered: its own subprotocols may carry the token, ours carries nothing. */
const SUBPROTOCOL = "cds.v1";
const BEARER_PREFIX = "bearer.";

/** Bytes of a reason that fit into a close frame, less what a cut character may grow by. */
const MAX_REASON_BYTES = 118;
/** A peer that does not answer a goodbye is cut off after this, ms. */
const GOODBYE_MS = 2000;

/** What closes the sockets of each route when their server stops. */
const closers = new WeakMap<object, Set<() => void>>();

/**
 * Make a server speak WebSocket, once however many routes ask for it. `closeAll` says goodbye to a route's sockets
 * when the server stops.
 */
export async function installWebSockets(
  app: FastifyInstance,
  { maxPayload, closeAll }: { maxPayload: number; closeAll: () => void },
): Promise<void> {
  if (!app.hasDecorator("websocketServer")) {
    await app.register(websocket, {
      options: {
        maxPayload,
        // Compression costs 300 kB per connection; what is large here is read over HTTP.
        perMessageDeflate: false,
        handleProtocols: (offered: Set<string>) => (offered.has(SUBPROTOCOL) ? SUBPROTOCOL : false),
      },
      preClose(done) {
        for (const close of closers.get(this.websocketServer) ?? []) close();
        this.websocketServer.close();
        done();
      },
    });
    closers.set(app.websocketServer, new Set());
  }
  closers.get(app.websocketServer)?.add(closeAll);
}

/** Close politely; a peer that does not answer is cut off. Its own goodbye is heard also where it was not listened to. */
export function closePolitely(ws: WebSocket, code: number, reason: string): void {
  ws.resume();
  ws.close(code, Buffer.from(reason).subarray(0, MAX_REASON_BYTES).toString());
  const timer = setTimeout(() => ws.terminate(), GOODBYE_MS);
  ws.once("close", () => clearTimeout(timer));
}

/** The token of an upgrade: from its header, or where a page cannot set one, from the subprotocol `bearer.<token>`. */
export function upgradeBearer({ headers }: FastifyRequest): {
  bearer: string | undefined;
  from: "header" | "subprotocol";
} {
  if (headers.authorization !== undefined) return { bearer: bearerOf(headers.authorization), from: "header" };
  const offered = (headers["sec-websocket-protocol"] ?? "").split(",").map((name) => name.trim());
  const found = offered.find((name) => name.startsWith(BEARER_PREFIX));
  return { bearer: found?.slice(BEARER_PREFIX.length), from: "subprotocol" };
}

/** @throws AppError for a page that may not connect, and for a token in the address. */
export function checkUpgrade({ query, headers }: FastifyRequest, origins: Origins): void {
  refuseTokenInUrl(query);
  if (origins.allowsRequest(headers.origin, headers.host)) return;
  throw new AppError("Forbidden", "Pages of this origin may not connect.", {
    hint: "Add the origin to CDS_ALLOWED_ORIGINS.",
  });
}

/** Tokens never travel in a URL: addresses end up in logs, histories and referrers. */
export function refuseTokenInUrl(query: unknown): void {
  const names = Object.keys((query as Record<string, unknown> | null) ?? {});
  if (
    names.some((name) => /^(access_|api_|bearer_)?(token|key)$|^(authorization|bearer|jwt|auth)$/i.test(name))
  ) {
    throw new AppError("InvalidRequest", "A token must not be part of the address.", {
      hint: "Send it as `Authorization: Bearer`; over WebSocket also as the subprotocol `bearer.<token>` or with session.authenticate.",
    });
  }
}
