import { timingSafeEqual } from "node:crypto";
import type { FastifyInstance, FastifyRequest } from "fastify";
import { Registry } from "prom-client";
import { AppError } from "#schemas";
import { bearerOf } from "./http/caller.ts";

/** Every metric of this process; each is defined by the room it is about. */
export const metricsRegistry = new Registry();

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
  const local = ["127.0.0.1", "::1", "::ffff:127.0.0.1"].includes(request.socket.remoteAddress ?? "");
  return local && request.headers["x-forwarded-for"] === undefined && request.headers.forwarded === undefined;
}
