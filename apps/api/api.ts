import type { Database } from "#database";
import type { EventFeed } from "#database/events/index.ts";
import type { Authenticator } from "#platform/authenticate.ts";
import type { Config } from "#platform/config/config.ts";
import type { Origins } from "#platform/http/index.ts";
import type { Secrets } from "#platform/secrets.ts";
import type { TokenBuckets } from "#platform/token-bucket.ts";
import { Gate, OpenPerUser } from "./gate.ts";
import { handlers } from "./methods/index.ts";
import { RpcEngine } from "./rpc/engine.ts";
import type { Workbench } from "./workbench/workbench.ts";
import { SOCKET_TIMING, type SocketTiming } from "./ws/socket.ts";

const HEARTBEAT_MS = 15_000;

export interface ApiDeps {
  readonly database: Database;
  readonly config: Config;
  readonly secrets: Secrets;
  readonly authenticate: Authenticator;
  readonly feed: EventFeed;
  readonly workbench: Workbench;
  /** Which pages may open a WebSocket. */
  readonly origins: Origins;
  readonly perUser: TokenBuckets;
  readonly perIp: TokenBuckets;
  /** Times that tests shorten; ms. */
  readonly timing?: Partial<SocketTiming> & { heartbeat?: number; call?: number };
}

/** What the routes share. One per process, however many origins it is mounted on: limits count across them. */
export interface Api extends Pick<ApiDeps, "database" | "config" | "feed" | "origins" | "workbench"> {
  readonly gate: Gate;
  readonly engine: RpcEngine;
  /** Sockets and event streams a user has open. */
  readonly open: OpenPerUser;
  readonly timing: SocketTiming;
  readonly heartbeatMs: number;
}

export function createApi(deps: ApiDeps): Api {
  const { database, config, secrets, feed, workbench, origins, perUser, perIp, timing = {} } = deps;
  const { heartbeat = HEARTBEAT_MS, call, ...socket } = timing;
  return {
    database,
    config,
    feed,
    origins,
    workbench,
    gate: new Gate({ authenticate: deps.authenticate, perUser, perIp }),
    engine: new RpcEngine({
      handlers,
      database,
      config,
      secrets,
      workbench,
      ...(call === undefined ? {} : { callTimeoutMs: call }),
    }),
    open: new OpenPerUser(config.limits.socketsPerUser),
    timing: { ...SOCKET_TIMING, ...socket },
    heartbeatMs: heartbeat,
  };
}
