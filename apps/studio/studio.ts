import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { type EnsuredAdmin, ensureAdmin } from "#apps/auth/index.ts";
import { startOrchestrator } from "#apps/orchestrator/index.ts";
import { ensureUiBuilt } from "#apps/studio-ui/build.ts";
import { migrate, openDatabase } from "#database";
import { createAuthenticator } from "#database/accounts/authenticator.ts";
import { deleteExpiredRefresh } from "#database/accounts/refresh-tokens.ts";
import { createSessions } from "#database/accounts/sessions.ts";
import { chooseDataDir } from "#database/embedded/identity.ts";
import { startEmbeddedPostgres } from "#database/embedded/start.ts";
import { EventFeed } from "#database/events/index.ts";
import { startBlobCollector } from "#database/projects/index.ts";
import {
  AccessTokens,
  type Config,
  createLogger,
  createRequireCaller,
  HealthRegistry,
  Lifecycle,
  type Log,
  Origins,
  openSecrets,
  TaskTokens,
  TokenBuckets,
} from "#platform";
import { lockForProcess } from "#platform/host/process-lock.ts";
import { repeat } from "#platform/repeat.ts";
import { openSandboxes, type Sandboxes } from "#sandbox";
import { addRunChecks, problemsOf } from "./run-health.ts";
import { listenAll, type Shared, type Urls } from "./servers.ts";

export interface Studio {
  /** `http://host:port` of each server. */
  readonly urls: Urls;
  readonly dataDir: string;
  /** Whether the data directory is not the default one, because other users could not enter that. */
  readonly dataDirMoved: boolean;
  /** An administrator; with a password only when it was generated at this start. */
  readonly admin: EnsuredAdmin;
  /** What does not work on this machine and how to mend it, a line each. */
  readonly problems: readonly string[];
  /** End everything in order; idempotent. Answers the names of what did not close in time. */
  close(): Promise<string[]>;
}

/** Longer than killing every sandbox may take. */
const KILL_MS = 15_000;
const SESSIONS_EVERY_MS = 60 * 60_000;

/** Compose every service in this process. What was started is closed again when a later part fails to start. */
export async function startStudio(given: Config, options: { log?: Log } = {}): Promise<Studio> {
  const { dataDir, moved } = chooseDataDir(given);
  const config: Config = { ...given, dataDir };
  const log = options.log ?? createLogger(config.log);
  const lifecycle = new Lifecycle(log);
  try {
    await mkdir(dataDir, { recursive: true });
    await claimDataDir(config, lifecycle);
    // The launcher is forked first, while this process is small, and ends after everything that runs in it.
    const sandboxes = await openSandboxes({ dataDir, log, tempDirPrefix: config.run.tempDirPrefix });
    lifecycle.add("sandboxes", () => sandboxes.close(), KILL_MS);
    const [shared] = await Promise.all([openShared(config, log, lifecycle, sandboxes), ensureUiBuilt()]);
    const admin = await ensureAdmin(shared.database, config);
    const runHealth = new HealthRegistry();
    addRunChecks(runHealth, shared);
    const urls = await listenAll(shared, runHealth);
    const orchestrator = await startOrchestrator({ ...shared, llmUrl: urls.llm });
    lifecycle.add(
      "orchestrator",
      () => orchestrator.close(config.shutdownGraceMs),
      config.shutdownGraceMs + KILL_MS,
    );
    const problems = await problemsOf(shared);
    return { urls, dataDir, dataDirMoved: moved, admin, problems, close: () => lifecycle.close() };
  } catch (error) {
    await lifecycle.close();
    throw error;
  }
}

/** One studio per data directory; the embedded database has its own lock there. */
async function claimDataDir(config: Config, lifecycle: Lifecycle): Promise<void> {
  if (config.database.url === undefined) return;
  const what = `The data directory ${config.dataDir}`;
  const lock = await lockForProcess(join(config.dataDir, "studio.lock"), what);
  lifecycle.add("data directory", () => lock.release());
}

async function openShared(
  config: Config,
  log: Log,
  lifecycle: Lifecycle,
  sandboxes: Sandboxes,
): Promise<Shared> {
  const url = config.database.url ?? (await embeddedUrl(config, log, lifecycle));
  const database = await openDatabase({ ...config.database, url, log });
  lifecycle.add("database", () => database.close());
  await migrate(database.db);
  const collector = startBlobCollector(database.db, log);
  lifecycle.add("blob collector", () => collector.close());
  const expired = repeat(log, "expired sessions", SESSIONS_EVERY_MS, async () => {
    await deleteExpiredRefresh(database.db);
  });
  lifecycle.add("expired sessions", () => expired.close());
  const secrets = await openSecrets(config);
  const accessTokens = await AccessTokens.open(secrets, config.auth.accessTokenSeconds);
  const authenticator = createAuthenticator({ database, accessTokens });
  const feed = await EventFeed.open(database, log);
  lifecycle.add("event feed", () => feed.close());
  const { requestsPerIp, requestsPerIpBurst, requestsPerUser, requestsPerUserBurst } = config.limits;
  const perUser = new TokenBuckets({ perSecond: requestsPerUser, burst: requestsPerUserBurst });
  return {
    config,
    log,
    lifecycle,
    database,
    secrets,
    accessTokens,
    taskTokens: await TaskTokens.open(secrets),
    authenticator,
    sessions: createSessions({ database, accessTokens, config }),
    requireCaller: createRequireCaller({ authenticate: authenticator.authenticate, perUser }),
    feed,
    sandboxes,
    origins: new Origins(config.allowedOrigins),
    perIp: new TokenBuckets({ perSecond: requestsPerIp, burst: requestsPerIpBurst }),
    perUser,
  };
}

async function embeddedUrl(config: Config, log: Log, lifecycle: Lifecycle): Promise<string> {
  const postgres = await startEmbeddedPostgres({
    dataDir: config.dataDir,
    log,
    connections: config.database.pool,
  });
  lifecycle.add("PostgreSQL", () => postgres.stop(), 30_000);
  return postgres.url;
}
