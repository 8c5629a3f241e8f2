import type { FastifyInstance } from "fastify";
import { createApi, registerApi, Workbench } from "#apps/api/index.ts";
import { registerOpencodeRoutes } from "#apps/api/opencode/index.ts";
import { registerPocketbase } from "#apps/api/pocketbase/index.ts";
import { registerAuth } from "#apps/auth/index.ts";
import { createLlmServer, type LlmServer, registerLlmServer } from "#apps/llmserver/index.ts";
import { registerUi } from "#apps/studio-ui/server.ts";
import type { Database } from "#database";
import type { AccountAuthenticator } from "#database/accounts/authenticator.ts";
import type { Sessions } from "#database/accounts/sessions.ts";
import type { EventFeed } from "#database/events/index.ts";
import {
  type AccessTokens,
  type Config,
  closeHttpServer,
  createHttpServer,
  HealthRegistry,
  type Lifecycle,
  type Log,
  type Origins,
  portOf,
  type RequireCaller,
  type Secrets,
  type TaskTokens,
  type TokenBuckets,
} from "#platform";
import { registerMetrics } from "#platform/metrics.ts";
import { openJanitor, type Sandboxes } from "#sandbox";

/** What the services of one process share; made once, handed to each. */
export interface Shared {
  config: Config;
  log: Log;
  lifecycle: Lifecycle;
  database: Database;
  secrets: Secrets;
  accessTokens: AccessTokens;
  taskTokens: TaskTokens;
  authenticator: AccountAuthenticator;
  sessions: Sessions;
  requireCaller: RequireCaller;
  feed: EventFeed;
  sandboxes: Sandboxes;
  origins: Origins;
  perIp: TokenBuckets;
  perUser: TokenBuckets;
}

/** For ending programs and keeping what they changed. */
const WORKBENCH_MS = 30_000;

export type Urls = { ui: string; api: string; auth: string; llm: string };

type Mount = (app: FastifyInstance) => Promise<void>;

/** Which routes stand on which port; the page's origin has all of them. */
function mounts(
  shared: Shared & { workbench: Workbench },
  health: HealthRegistry,
  models: LlmServer,
): Record<keyof Urls, readonly Mount[]> {
  const { secrets, authenticator, sessions, accessTokens, requireCaller } = shared;
  const api = createApi({ ...shared, authenticate: authenticator.authenticate });
  const mountApi: Mount = async (app) => {
    await registerApi(app, api);
    await registerPocketbase(app, { api, secrets, sessions, accessTokens, authenticator });
    registerOpencodeRoutes(app, { api, secrets, health });
  };
  const mountAuth: Mount = (app) => registerAuth(app, { ...shared, requireCaller });
  const mountLlm: Mount = (app) => registerLlmServer(app, models);
  return {
    llm: [mountLlm],
    auth: [mountAuth],
    api: [mountApi],
    ui: [mountApi, mountAuth, mountLlm, registerUi],
  };
}

/** Start the four servers. `health` is what an agent run needs; it is asked by the OpenCode gateway. */
export async function listenAll(shared: Shared, runHealth: HealthRegistry): Promise<Urls> {
  const { config, lifecycle, origins, database } = shared;
  const models = await createLlmServer({ ...shared, authenticate: shared.authenticator.authenticate });
  lifecycle.add("models", () => models.close(), config.shutdownGraceMs + 5000);
  const workbench = await Workbench.open(shared);
  lifecycle.add("workbench", () => workbench.close(), WORKBENCH_MS);
  const { everyMs, maxAgeMs, diskThreshold } = config.cleanup;
  const janitor = openJanitor({
    sources: [...shared.sandboxes.orphans, ...workbench.cleanSources()],
    places: [config.dataDir],
    log: shared.log.child({ part: "janitor" }),
    ...{ everyMs, maxAgeMs, diskThreshold },
  });
  lifecycle.add("janitor", () => janitor.close(), WORKBENCH_MS);
  const routes = mounts({ ...shared, workbench }, runHealth, models);
  const health = new HealthRegistry();
  health.add("database", async () => {
    await database.ping();
    return undefined;
  });
  const urls: Urls = { ui: "", api: "", auth: "", llm: "" };
  for (const name of Object.keys(routes) as (keyof Urls)[]) {
    const app = createHttpServer({
      log: shared.log.child({ server: name }),
      origins,
      health,
      bodyBytes: config.limits.bodyBytes,
      trustedProxies: config.trustedProxies,
      perIp: shared.perIp,
    });
    registerMetrics(app, { token: config.metricsToken });
    for (const mount of routes[name]) await mount(app);
    await app.listen({ host: config.host, port: config.ports[name] });
    lifecycle.add(
      `server ${name}`,
      () => closeHttpServer(app, config.shutdownGraceMs),
      config.shutdownGraceMs + 5000,
    );
    origins.addOwn(portOf(app), config.host);
    urls[name] = `http://${urlHost(config.host)}:${portOf(app)}`;
  }
  return urls;
}

/** The address a person can open: a wildcard is no address. */
function urlHost(host: string): string {
  if (host === "0.0.0.0") return "127.0.0.1";
  if (host === "::") return "[::1]";
  return host.includes(":") ? `[${host}]` : host;
}
