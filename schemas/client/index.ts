import type { MethodInput, MethodName, MethodResult } from "../rpc/index.ts";
import type { CallOptions, HttpOptions, TokenSource } from "./http.ts";
import { type BatchCall, type BatchResult, batchOver, callOver } from "./rpc.ts";
import {
  type SocketConstructor,
  type SubscribeOptions,
  TaskEvents,
  type TaskSubscription,
} from "./task-events.ts";

export { createAuth } from "./auth.ts";
export type { SubscribeOptions } from "./task-events.ts";

export interface ClientOptions {
  /** The origin, e.g. `http://127.0.0.1:6711`. */
  readonly baseUrl: string;
  /** An access token or API key that does not change; or else `getToken`. */
  readonly token?: string;
  readonly getToken?: TokenSource;
  readonly fetch?: typeof fetch;
  readonly WebSocket?: SocketConstructor;
  /** ms per call; 30,000 when left out. */
  readonly timeoutMs?: number;
}

/** The studio's methods, typed; for browsers and Node. Every failure is an AppError. */
export interface Client {
  call<M extends MethodName>(
    method: M,
    params: MethodInput<M>,
    options?: CallOptions,
  ): Promise<MethodResult<M>>;
  batch<const C extends readonly BatchCall[]>(calls: C, options?: CallOptions): Promise<BatchResult<C>>;
  /** Follow a task over WebSocket, to its end and across reconnects. */
  subscribeTask(task_id: string, options: SubscribeOptions): TaskSubscription;
  /** Ends every subscription. */
  close(): void;
}

export function createClient(options: ClientOptions): Client {
  const baseUrl = options.baseUrl.replace(/\/+$/, "");
  const token: TokenSource = options.getToken ?? (() => options.token);
  const http: HttpOptions = {
    baseUrl,
    token,
    // Browsers want `fetch` called on the window.
    fetch: options.fetch ?? ((input, init) => fetch(input, init)),
    timeoutMs: options.timeoutMs ?? 30_000,
  };
  let events: TaskEvents | undefined;
  return {
    call: (method, params, callOptions) => callOver(http, method, params, callOptions),
    batch: (calls, callOptions) => batchOver(http, calls, callOptions),
    subscribeTask: (task_id, subscribeOptions) => {
      events ??= new TaskEvents({ baseUrl, token, WebSocket: options.WebSocket ?? WebSocket });
      return events.subscribe(task_id, subscribeOptions);
    },
    close: () => events?.close(),
  };
}
