import { randomBytes } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import cors from "@fastify/cors";
import { type FastifyBaseLogger, type FastifyInstance, fastify, LogController } from "fastify";
import { AppError, type ErrorCode } from "#schemas";
import type { Log } from "../log.ts";
import type { TokenBuckets } from "../token-bucket.ts";
import { addressKey } from "./address-key.ts";
import { installJsonBodies } from "./bodies.ts";
import { installErrorHandling, sendError } from "./errors.ts";
import { type HealthRegistry, registerHealth } from "./health.ts";
import type { Origins } from "./origins.ts";

export interface HttpServerOptions {
  log: Log;
  origins: Origins;
  health: HealthRegistry;
  /** Largest body in bytes; a route may set its own `bodyLimit`. */
  bodyBytes: number;
  /** Proxies (addresses or CIDR) whose X-Forwarded-For is believed. */
  trustedProxies?: readonly string[];
  /** Requests per client address; /health is free. */
  perIp?: TokenBuckets | undefined;
  timeouts?: { headersMs?: number; requestMs?: number; keepAliveMs?: number };
}

const REQUEST_ID = /^[\w.:/+=-]{1,128}$/;

/** A server with everything each of ours has; routes are added by whoever owns it, before it listens. */
export function createHttpServer(options: HttpServerOptions): FastifyInstance {
  const { headersMs = 15_000, requestMs = 300_000, keepAliveMs = 65_000 } = options.timeouts ?? {};
  const proxies = options.trustedProxies ?? [];
  const app = fastify({
    loggerInstance: options.log as FastifyBaseLogger,
    logController: new LogController({ disableRequestLogging: true, requestIdLogLabel: "request_id" }),
    genReqId,
    bodyLimit: options.bodyBytes,
    trustProxy: proxies.length > 0 ? [...proxies] : false,
    keepAliveTimeout: keepAliveMs,
    requestTimeout: requestMs,
    forceCloseConnections: "idle",
    return503OnClosing: true,
    http: { headersTimeout: headersMs, connectionsCheckingInterval: Math.min(headersMs, 5000) },
    clientErrorHandler: answerBrokenRequest,
    frameworkErrors: (error, request, reply) => {
      sendError(reply, request, error);
    },
    routerOptions: { ignoreTrailingSlash: false, maxParamLength: 256 },
  });
  installErrorHandling(app);
  installJsonBodies(app);
  // The order matters: also a refusal by rate must carry the CORS headers, or a page could not read it.
  app.register(cors, corsOptions(options.origins));
  app.register(onThisInstance(async (instance) => installHooks(instance, options)));
  registerHealth(app, options.health);
  return app;
}

/**
 * Take no new connection, let requests in flight finish for `graceMs`, then end what is left. Streams that
 * never end by themselves are closed by their owners in a `preClose` hook.
 */
export async function closeHttpServer(app: FastifyInstance, graceMs: number): Promise<void> {
  const timer = new AbortController();
  const late = sleep(graceMs, undefined, { signal: timer.signal })
    .then(() => app.server.closeAllConnections())
    .catch(() => undefined);
  // A connection whose request ends only now becomes idle after Node has looked for idle ones.
  const sweep = setInterval(() => app.server.closeIdleConnections(), 50);
  try {
    await app.close();
  } finally {
    clearInterval(sweep);
    timer.abort();
    await late;
  }
}

/** The port a server listens on, also when it was started with port 0. */
export function portOf(app: FastifyInstance): number {
  const address = app.server.address();
  if (address === null || typeof address === "string")
    throw new Error("the server does not listen on a port");
  return address.port;
}

function installHooks(app: FastifyInstance, options: HttpServerOptions): void {
  app.addHook("onRequest", async (request, reply) => {
    reply.headers({
      "x-request-id": request.id,
      "x-content-type-options": "nosniff",
      "x-frame-options": "DENY",
      "referrer-policy": "no-referrer",
    });
    if (request.routeOptions.url !== "/health") options.perIp?.takeOrThrow(addressKey(request.ip));
  });
  app.addHook("onSend", async (_request, reply, payload) => {
    const type = String(reply.getHeader("content-type") ?? "");
    if (type.startsWith("application/json") && !reply.hasHeader("content-security-policy")) {
      reply.header("content-security-policy", "default-src 'none'; frame-ancestors 'none'");
    }
    return payload;
  });
  app.addHook("onResponse", async (request, reply) => {
    // Neither query string nor headers: tokens and prompts travel there.
    request.log.info(
      {
        method: request.method,
        path: request.url.split("?", 1)[0],
        status: reply.statusCode,
        ms: Math.round(reply.elapsedTime * 10) / 10,
        ip: request.ip,
      },
      "request",
    );
  });
}

function corsOptions(origins: Origins) {
  return {
    origin: (origin: string | undefined, done: (error: Error | null, allow: boolean) => void) =>
      done(null, origin !== undefined && origins.allows(origin)),
    // Callers prove themselves by a header, never by a cookie.
    credentials: false,
    methods: ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
    exposedHeaders: ["x-request-id", "retry-after", "content-disposition"],
    maxAge: 600,
    strictPreflight: false,
  };
}

/** A caller's own id is taken when it is harmless in a log and a header, so that traces join up. */
function genReqId(request: IncomingMessage): string {
  const given = request.headers["x-request-id"];
  return typeof given === "string" && REQUEST_ID.test(given) ? given : randomBytes(12).toString("base64url");
}

/** Hooks of a plugin marked so belong to the instance itself and not to a child of it. */
function onThisInstance(plugin: (app: FastifyInstance) => Promise<void>) {
  return Object.assign(plugin, { [Symbol.for("skip-override")]: true });
}

/** What is not even HTTP: answered on the bare socket. */
function answerBrokenRequest(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === "ECONNRESET" || !socket.writable) {
    socket.destroy();
    return;
  }
  const [status, code, message] = brokenRequest(error.code);
  const body = JSON.stringify(new AppError(code, message).toHttp());
  socket.end(
    `HTTP/1.1 ${status}\r\nContent-Type: application/json; charset=utf-8\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}

function brokenRequest(code: string | undefined): [status: string, code: ErrorCode, message: string] {
  if (code === "ERR_HTTP_REQUEST_TIMEOUT") {
    return ["408 Request Timeout", "Timeout", "The request did not arrive in time."];
  }
  if (code === "HPE_HEADER_OVERFLOW") {
    return ["431 Request Header Fields Too Large", "InvalidRequest", "The headers are too large."];
  }
  return ["400 Bad Request", "InvalidRequest", "This is not a valid HTTP request."];
}
