import type { Database } from "#database";
import type { Caller } from "#platform/authenticate.ts";
import type { Config } from "#platform/config/config.ts";
import type { Log } from "#platform/log.ts";
import type { Secrets } from "#platform/secrets.ts";
import {
  AppError,
  type MethodName,
  type MethodParams,
  type MethodResult,
  type NotificationName,
  type NotificationParams,
  type UserView,
} from "#schemas";
import type { Workbench } from "./workbench/workbench.ts";

/** What a method may do with the WebSocket it was called on. Absent over plain HTTP. */
export interface Connection {
  /** Sign the connection in; throws Unauthenticated, or Forbidden for a token that may not call methods. */
  authenticate(token: string): Promise<UserView>;
  /** Send every event of the task after `afterSeq` as `agent.event` notifications; the last is `done`. */
  subscribe(taskId: string, afterSeq: number): void;
  unsubscribe(taskId: string): void;
  /** Send a notification; resolves when the peer's side has taken it, or is gone. */
  notify<N extends NotificationName>(name: N, params: NotificationParams<N>): Promise<void>;
  /** Do something once this call has been answered. */
  afterAnswer(act: () => void): void;
  /** Aborted when the connection is closed. */
  readonly closed: AbortSignal;
}

/** Everything a method may use. Made for one call; nothing in it outlives the call. */
export interface Context {
  /** Who calls. Reading it in a `public` method that nobody is signed in for throws Unauthenticated. */
  readonly caller: Caller;
  readonly database: Database;
  readonly config: Config;
  readonly secrets: Secrets;
  /** What users drive by hand: programs, terminals, modules, machines. */
  readonly workbench: Workbench;
  /** Carries the request's id and the method's name. */
  readonly log: Log;
  /** Aborted when the caller has gone. */
  readonly signal: AbortSignal;
  readonly connection?: Connection;
}

/** The WebSocket a method was called on. @throws AppError InvalidRequest over plain HTTP. */
export function connectionOf({ connection }: Pick<Context, "connection">): Connection {
  if (connection !== undefined) return connection;
  throw new AppError("InvalidRequest", "This works over WebSocket only.", { hint: "Connect to /ws." });
}

/** One method's work: params arrive checked and with defaults; failures are thrown as AppError. */
type Handler<M extends MethodName> = (context: Context, params: MethodParams<M>) => Promise<MethodResult<M>>;

/** A group of methods, e.g. `Handlers<"fs.read" | "fs.write">`; without an argument: all of them. */
export type Handlers<M extends MethodName = MethodName> = { readonly [K in M]: Handler<K> };

/** All methods whose name starts with `P`, e.g. `HandlersOf<"fs.">`. */
export type HandlersOf<P extends string> = Handlers<Extract<MethodName, `${P}${string}`>>;
