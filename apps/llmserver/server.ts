import type { Database } from "#database/open.ts";
import type { Db } from "#database/schema.ts";
import type { Authenticator } from "#platform/authenticate.ts";
import type { Config } from "#platform/config/config.ts";
import type { Origins } from "#platform/http/index.ts";
import type { Log } from "#platform/log.ts";
import { beforeMetrics } from "#platform/metrics.ts";
import type { Secrets } from "#platform/secrets.ts";
import type { TokenBuckets } from "#platform/token-bucket.ts";
import type { TaskTokens } from "#platform/tokens/index.ts";
import { LiveCalls } from "./calls/live-calls.ts";
import { startSweeper } from "./calls/sweeper.ts";
import { UnclosedCalls } from "./calls/unclosed.ts";
import { ModelLimits } from "./limits.ts";
import { LocalModels } from "./local/models.ts";
import { observeMemory } from "./metrics.ts";
import { RemoteProviders } from "./remote/client.ts";

export interface LlmServerDeps {
  database: Pick<Database, "db">;
  config: Pick<
    Config,
    | "provider"
    | "billing"
    | "run"
    | "instanceId"
    | "shutdownGraceMs"
    | "llm"
    | "llmLimits"
    | "hub"
    | "limits"
    | "dataDir"
  >;
  log: Log;
  /** JWT or API key to caller; task tokens are judged here. */
  authenticate: Authenticator;
  taskTokens: Pick<TaskTokens, "verify">;
  secrets: Secrets;
  /** Which pages may open a WebSocket. */
  origins: Origins;
  /** Requests per user; shared with the other servers of the process. */
  perUser?: TokenBuckets | undefined;
}

/** What the routes share. One per process, however many origins it is mounted on: breakers and limits count across them. */
export interface LlmServer extends Omit<LlmServerDeps, "database"> {
  readonly db: Db;
  readonly remote: RemoteProviders;
  readonly models: LocalModels;
  readonly live: LiveCalls;
  readonly unclosed: UnclosedCalls;
  readonly limits: ModelLimits;
  /** End and charge every call in flight, then everything else; idempotent. */
  close(): Promise<void>;
}

/** Calls in flight may end by themselves for this long when the server stops. */
const LONGEST_GRACE_MS = 2000;

/** Also releases what calls of killed processes still hold. */
export async function createLlmServer({ database, ...deps }: LlmServerDeps): Promise<LlmServer> {
  const { config, log } = deps;
  const { db } = database;
  const sweeper = await startSweeper(db, log, config.instanceId);
  const remote = new RemoteProviders(config.provider, log);
  const models = await LocalModels.open({ db, config, log });
  const live = new LiveCalls();
  const unclosed = new UnclosedCalls(log);
  const endMetrics = beforeMetrics(async () => observeMemory(await models.memory()));
  let closed: Promise<void> | undefined;
  const close = async () => {
    await live.close(Math.min(LONGEST_GRACE_MS, config.shutdownGraceMs));
    await unclosed.close();
    endMetrics();
    await Promise.all([remote.close(), models.close(), sweeper.close()]);
  };
  return {
    ...deps,
    db,
    remote,
    models,
    live,
    unclosed,
    limits: new ModelLimits(config.llmLimits),
    close() {
      closed ??= close();
      return closed;
    },
  };
}
