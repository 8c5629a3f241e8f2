import { AppError, toAppError } from "../errors.ts";
import { isTerminal, type TaskEvent, type TaskState } from "../events.ts";
import type { TokenSource } from "./http.ts";
import { errorFromWire, isNotification, isResponse, type RpcResponse } from "./wire.ts";

const SUBPROTOCOL = "cds.v1";
const CLOSE_UNAUTHENTICATED = 4401;
/** ms; doubled with every failure, and a little at random, so that not all come back at once. */
const FIRST_RETRY = 250;
const LONGEST_RETRY = 10_000;
/** Without a word for this long (ms) the server is asked for one; after twice that it is given up. */
const SILENCE = 20_000;

/** The part of the standard WebSocket that is used, so that any implementation of it will do. */
export interface SocketLike {
  readonly readyState: number;
  send(text: string): void;
  close(code?: number, reason?: string): void;
  addEventListener(type: "open", listener: () => void): void;
  addEventListener(type: "message", listener: (event: { data: unknown }) => void): void;
  addEventListener(type: "close", listener: (event: { code: number; reason: string }) => void): void;
  addEventListener(type: "error", listener: () => void): void;
}
export type SocketConstructor = new (url: string, protocols: string[]) => SocketLike;

interface TaskWatcher {
  /** Each event once, in order, across reconnects. */
  onEvent(event: TaskEvent): void;
  /** The task has ended and everything was delivered; the last call. */
  onDone?(state: TaskState): void;
  /** It cannot be followed (no such task, signed out); the last call. */
  onError?(error: AppError): void;
  /** Whether events can arrive at the moment. */
  onConnection?(connected: boolean): void;
}

export interface SubscribeOptions extends TaskWatcher {
  /** The last event already known; 0 = from the first. */
  readonly afterSeq?: number;
}

export interface TaskSubscription {
  /** Stop following; no callback after that. */
  close(): void;
}

interface Followed {
  readonly task_id: string;
  readonly watcher: TaskWatcher;
  seq: number;
}

/**
 * Follows tasks over one WebSocket, opened for the first subscription and closed with the last. A connection
 * that breaks is made again and every task taken up after the last event seen.
 */
export class TaskEvents {
  readonly #url: string;
  readonly #Socket: SocketConstructor;
  readonly #token: TokenSource;
  readonly #silenceMs: number;
  readonly #followed = new Set<Followed>();
  #socket: SocketLike | undefined;
  #connecting = false;
  #open = false;
  #retryMs = FIRST_RETRY;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #watchdog: ReturnType<typeof setInterval> | undefined;
  #heardAt = 0;
  #usedToken: string | undefined;
  #refusedToken: string | undefined;

  constructor(options: {
    baseUrl: string;
    WebSocket: SocketConstructor;
    token: TokenSource;
    silenceMs?: number;
  }) {
    this.#url = `${options.baseUrl.replace(/^http/, "ws")}/ws`;
    this.#silenceMs = options.silenceMs ?? SILENCE;
    this.#Socket = options.WebSocket;
    this.#token = options.token;
  }

  subscribe(task_id: string, { afterSeq = 0, ...watcher }: SubscribeOptions): TaskSubscription {
    const followed: Followed = { task_id, watcher, seq: afterSeq };
    this.#followed.add(followed);
    if (this.#open) this.#request(task_id);
    else void this.#connect();
    return {
      close: () => {
        if (this.#followed.delete(followed)) this.#left(task_id);
      },
    };
  }

  close(): void {
    this.#followed.clear();
    this.#disconnect();
  }

  async #connect(): Promise<void> {
    if (this.#connecting || this.#socket !== undefined) return;
    this.#connecting = true;
    clearTimeout(this.#retry);
    try {
      const token = await this.#token(this.#refusedToken);
      if (token !== undefined && token === this.#refusedToken)
        throw new AppError("Unauthenticated", "The session has ended.");
      if (this.#followed.size === 0) return;
      this.#usedToken = token;
      this.#listen(
        new this.#Socket(this.#url, token === undefined ? [SUBPROTOCOL] : [SUBPROTOCOL, `bearer.${token}`]),
      );
    } catch (thrown) {
      const error = toAppError(thrown);
      // Who cannot renew the session now may be able to in a moment, but not after a refusal.
      if (error.code === "Unauthenticated") this.#failAll(error);
      else this.#later();
    } finally {
      this.#connecting = false;
    }
  }

  #listen(socket: SocketLike): void {
    this.#socket = socket;
    socket.addEventListener("open", () => {
      if (this.#socket !== socket) return socket.close();
      this.#open = true;
      this.#heard();
      this.#watchdog = setInterval(() => this.#watch(socket), this.#silenceMs / 2);
      for (const task_id of new Set([...this.#followed].map((followed) => followed.task_id)))
        this.#request(task_id);
      for (const { watcher } of this.#followed) watcher.onConnection?.(true);
    });
    socket.addEventListener("message", ({ data }) => {
      if (this.#socket === socket && typeof data === "string") this.#receive(data);
    });
    socket.addEventListener("error", () => undefined);
    socket.addEventListener("close", ({ code, reason }) => {
      if (this.#socket === socket) this.#lost(code, reason);
    });
  }

  #receive(text: string): void {
    this.#heard();
    let message: unknown;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    if (isNotification(message)) {
      if (message.method === "agent.event") this.#deliver(message.params as unknown as TaskEvent);
    } else if (isResponse(message)) {
      this.#answered(message);
    }
  }

  #deliver(event: TaskEvent): void {
    this.#retryMs = FIRST_RETRY;
    this.#refusedToken = undefined;
    for (const followed of [...this.#followed]) {
      if (followed.task_id !== event.task_id || event.seq <= followed.seq) continue;
      followed.seq = event.seq;
      followed.watcher.onEvent(event);
      if (event.type === "done") this.#ended(followed, event.state);
    }
  }

  /** Ids of our requests are the task's id; those of the watchdog are numbers. */
  #answered(response: RpcResponse): void {
    const concerned = [...this.#followed].filter((followed) => followed.task_id === response.id);
    if (response.error !== undefined) {
      const error = errorFromWire(response.error);
      if (error.code === "Unauthenticated") {
        // With a token, the close that follows brings a fresh one.
        if (this.#usedToken === undefined) this.#failAll(error);
        return;
      }
      // What is busy or away now is asked again after a reconnect.
      if (concerned.length === 0) return;
      if (error.code === "NotFound" || error.code === "InvalidParams" || error.code === "Forbidden") {
        for (const followed of concerned) this.#failed(followed, error);
      } else {
        this.#socket?.close();
      }
      return;
    }
    const { state, last_seq } = (response.result ?? {}) as { state?: TaskState; last_seq?: number };
    if (state === undefined || last_seq === undefined || !isTerminal(state)) return;
    for (const followed of concerned) if (followed.seq >= last_seq) this.#ended(followed, state);
  }

  /** One subscription per task on the wire: from where the watcher that knows least stands. */
  #request(task_id: string): void {
    const seqs = [...this.#followed].filter((followed) => followed.task_id === task_id).map(({ seq }) => seq);
    this.#send({ method: "agent.subscribe", params: { task_id, after_seq: Math.min(...seqs) }, id: task_id });
  }

  #ended(followed: Followed, state: TaskState): void {
    if (!this.#followed.delete(followed)) return;
    followed.watcher.onDone?.(state);
    if (this.#followed.size === 0) this.#disconnect();
  }

  #failed(followed: Followed, error: AppError): void {
    if (!this.#followed.delete(followed)) return;
    followed.watcher.onError?.(error);
    if (this.#followed.size === 0) this.#disconnect();
  }

  #left(task_id: string): void {
    if (this.#followed.size === 0) this.#disconnect();
    else if (this.#open && ![...this.#followed].some((followed) => followed.task_id === task_id)) {
      this.#send({ method: "agent.unsubscribe", params: { task_id } });
    }
  }

  #lost(code: number, reason: string): void {
    const wasOpen = this.#open;
    this.#forget();
    if (wasOpen) for (const { watcher } of this.#followed) watcher.onConnection?.(false);
    if (code === CLOSE_UNAUTHENTICATED) {
      if (this.#usedToken === undefined || this.#refusedToken !== undefined) {
        this.#failAll(new AppError("Unauthenticated", reason === "" ? "The session has ended." : reason));
        return;
      }
      this.#refusedToken = this.#usedToken;
    }
    this.#later();
  }

  #later(): void {
    if (this.#followed.size === 0) return;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => void this.#connect(), this.#retryMs * (0.5 + Math.random()));
    this.#retryMs = Math.min(this.#retryMs * 2, LONGEST_RETRY);
  }

  #failAll(error: AppError): void {
    for (const followed of [...this.#followed]) this.#failed(followed, error);
  }

  /** A connection that was cut without a word is noticed by asking for one. */
  #watch(socket: SocketLike): void {
    const silent = Date.now() - this.#heardAt;
    if (silent > 2 * this.#silenceMs) {
      this.#lost(1006, "");
      socket.close();
    } else if (silent > this.#silenceMs) {
      this.#send({ method: "session.me", params: {}, id: 1 });
    }
  }

  #heard(): void {
    this.#heardAt = Date.now();
  }

  #send(message: Record<string, unknown>): void {
    if (this.#open) this.#socket?.send(JSON.stringify({ jsonrpc: "2.0", ...message }));
  }

  #forget(): void {
    clearInterval(this.#watchdog);
    this.#socket = undefined;
    this.#open = false;
  }

  #disconnect(): void {
    clearTimeout(this.#retry);
    const socket = this.#socket;
    this.#forget();
    socket?.close(1000);
  }
}
