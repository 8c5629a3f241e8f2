import type { FastifyInstance } from "fastify";
import type { HealthRegistry } from "#platform/http/index.ts";
import type { Secrets } from "#platform/secrets.ts";
import type { Api } from "../api.ts";
import { streamPrompt } from "./stream.ts";

export interface OpencodeRoutesDeps {
  readonly api: Api;
  readonly secrets: Secrets;
  /** What an OpenCode run needs: database, sandbox, the executable. */
  readonly health: HealthRegistry;
}

/** The OpenCode gateway: `GET /test`, `GET /opencode/health` and `GET /opencode/stream`. */
export function registerOpencodeRoutes(app: FastifyInstance, deps: OpencodeRoutesDeps): void {
  app.get("/test", async () => ({
    status: "ok",
    message: "CyberDevStudio läuft",
    time: new Date().toISOString(),
  }));

  app.get("/opencode/health", { logLevel: "warn" }, async (_request, reply) => {
    const report = await deps.health.report();
    return reply
      .code(report.status === "ok" ? 200 : 503)
      .header("cache-control", "no-store")
      .send(report);
  });

  app.get("/opencode/stream", { exposeHeadRoute: false }, (request, reply) =>
    streamPrompt(deps, request, reply),
  );
}
