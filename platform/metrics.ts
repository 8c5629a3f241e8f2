import { timingSafeEqual } from "node:crypto";
import type { FastifyInstance, FastifyRequest } from "fastify";
import { Registry } from "prom-client";
import { AppError } from "#schemas";
import { bearerOf } from "./http/caller.ts";

/** Every metric of this process; each is defined by the room it is about. */
export const metricsRegistry = new Registry();

const LOOPBACK: ReadonlySet<string> = new Set(["127.0.0.1", "::1", "::ffff:127.0.0.1"]);
const OWN_NAMES: ReadonlySet<string> = new Set(["127.0.0.1", "localhost", "[::1]"]);
/** What proxies add: the reader is then somebody else. */
const PROXY_HEADERS = ["x-forwarded-for", "x-real-ip", "forwarded", "via"] as const;

/** Called before each reading, for figures that are asked for rather than counted. */
const refreshers = new Set<() => Promise<void>>();

/** @returns ends it. */
export function beforeMetrics(refresh: () => Promise<void>): () => void {
  refreshers.add(refresh);
  return () => void refreshers.delete(refresh);
}

/**
 * `GET /metrics` in Prometheus' text format: with the token when one is set, else for this machine alone. A request
 * that a proxy passed on is not this machine's, whatever address it comes from.
 */
export function registerMetrics(app: FastifyInstance, { token }: { token?: string | undefined }): void {
  app.get("/metrics", { logLevel: "warn" }, async (request, reply) => {
    if (!mayRead(request, token)) {
      throw new AppError("Forbidden", "Metrics are not for this caller.", {
        hint: "Set CDS_METRICS_TOKEN and send it as `Authorization: Bearer`.",
      });
    }
    await Promise.allSettled([...refreshers].map((refresh) => refresh()));
    return reply.type(metricsRegistry.contentType).send(await metricsRegistry.metrics());
  });
}

function mayRead(request: FastifyRequest, token: string | undefined): boolean {
  if (token !== undefined) {
    const given = Buffer.from(bearerOf(request.headers.authorization) ?? "");
    const wanted = Buffer.from(token);
    return given.length === wanted.length && timingSafeEqual(given, wanted);
  }
  const local = LOOPBACK.has(request.socket.remoteAddress ?? "");
  // A page of somebody else's whose name leads here calls us by that name.
  const asked = URL.parse(`http://${request.headers.host}`)?.hostname ?? "";
  return local && OWN_NAMES.has(asked) && !PROXY_HEADERS.some((name) => request.headers[name] !== undefined);
}
