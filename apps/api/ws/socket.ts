import type { WebSocket } from "ws";
import type { Caller } from "#platform/authenticate.ts";
import { closePolitely } from "#platform/http/websocket.ts";
import type { Log } from "#platform/log.ts";
import { AppError, type TaskEvent, toAppError, type UserView } from "#schemas";
import type { Api } from "../api.ts";
import { ANONYMOUS_BYTES, expiryOf } from "../gate.ts";
import type { Connection } from "../handler.ts";
import type { Session } from "../rpc/engine.ts";

/** Messages one connection has in work at a time; further ones wait, and the socket with them. */
const MAX_IN_FLIGHT = 8;
/** Besides those, calls that take as long as they like (run.stream); beyond, they count as all others. */
const MAX_LASTING = 64;

/** Close codes of our own, 4000 + the HTTP status that says the same. */
export const CLOSE = { goingAway: 1001, feedFailed: 1011, unauthenticated: 4401, tooMany: 4429 } as const;

/** All in ms. */
export interface SocketTiming {
  /** Between pings; a peer that has not answered the last one is gone. */
  readonly ping: number;
  /** Between checks that the token is still good. */
  readonly check: number;
  /** How long a connection may stay without signing in. */
  readonly signIn: number;
  /** How long a peer may take nothing off our hands. */
  readonly stuck: number;
}

export const SOCKET_TIMING: SocketTiming = { ping: 30_000, check: 10_000, signIn: 10_000, stuck: 120_000 };

interface Subscription {
  stop: () => void;
}

/** One WebSocket: its messages in, answers and notifications out, and everything it holds until it closes. */
export class RpcSocket {
  readonly #ws: WebSocket;
  readonly #api: Api;
  readonly #log: Log;
  readonly #address: string;
  readonly #gone = new AbortController();
  readonly #waiting: Buffer[] = [];
  readonly #subscriptions = new Map<string, Subscription>();
  readonly #timers: NodeJS.Timeout[] = [];
  #expiry: NodeJS.Timeout | undefined;
  #inFlight = 0;
  #lasting = 0;
  #bearer: string | undefined;
  #caller: Caller | undefined;
  #release: (() => void) | undefined;
  /** A sign-in under way: calls sent after it wait for it. */
  #signingIn: Promise<unknown> | undefined;
  #refused: AppError | undefined;
  #unanswered = false;
  #lastFlush = performance.now();

  constructor(ws: WebSocket, api: Api, options: { log: Log; address: string }) {
    this.#ws = ws;
    this.#api = api;
    this.#log = options.log;
    this.#address = options.address;
    const { ping, check, signIn } = api.timing;
    ws.on("message", (data: Buffer) => this.#receive(data));
    ws.on("pong", () => this.#heard());
    ws.on("error", (error) => this.#log.debug({ err: error }, "socket error"));
    ws.once("close", () => this.#closed());
    this.#timers.push(setInterval(() => this.#ping(), ping));
    this.#timers.push(setInterval(() => void this.#check(), check));
    this.#timers.push(
      setTimeout(() => {
        if (this.#caller === undefined) this.close(CLOSE.unauthenticated, "not signed in in time");
      }, signIn),
    );
  }

  /** Take over who the upgrade request proved to be. @throws AppError RateLimited */
  signedIn(caller: Caller, bearer: string): void {
    if (this.#caller !== undefined && this.#caller.user_id !== caller.user_id) {
      throw new AppError("Conflict", "This connection belongs to another user.", {
        hint: "Open a connection of its own.",
      });
    }
    this.#release ??= this.#api.open.acquire(caller.user_id);
    this.#caller = caller;
    this.#bearer = bearer;
    this.#refused = undefined;
    clearTimeout(this.#expiry);
    const expiresAt = expiryOf(bearer);
    if (expiresAt === undefined) return;
    // A little late on purpose: the verifier tolerates clocks that differ by two seconds.
    const left = Math.max(0, expiresAt - Date.now()) + 2500;
    this.#expiry = setTimeout(() => void this.#check(), Math.min(left, 2 ** 31 - 1));
  }

  /** Close politely; a peer that does not answer is cut off after two seconds. */
  close(code: number, reason: string): void {
    this.#gone.abort(new AppError("Cancelled", "The connection was closed."));
    closePolitely(this.#ws, code, reason);
  }

  #receive(data: Buffer): void {
    this.#heard();
    if (this.#gone.signal.aborted) return;
    if (this.#caller === undefined && this.#signingIn === undefined && data.length > ANONYMOUS_BYTES) {
      this.close(CLOSE.unauthenticated, "sign in before sending that much");
      return;
    }
    this.#waiting.push(data);
    this.#pump();
  }

  /** Start what there is room for. Answers that the peer does not take keep their place, so they are bounded. */
  #pump(): void {
    while (this.#inFlight < MAX_IN_FLIGHT && !this.#gone.signal.aborted) {
      const next = this.#waiting.shift();
      if (next === undefined) break;
      this.#inFlight += 1;
      let counted = true;
      const leave = () => {
        if (!counted) return;
        counted = false;
        this.#inFlight -= 1;
        this.#pump();
      };
      let lasts = 0;
      const last = () => {
        if (lasts > 0 || this.#lasting >= MAX_LASTING) return;
        lasts = 1;
        this.#lasting += 1;
        leave();
      };
      void this.#handle(next, last).finally(() => {
        this.#lasting -= lasts;
        leave();
      });
    }
    if (this.#inFlight >= MAX_IN_FLIGHT) this.#ws.pause();
    else if (this.#ws.isPaused) this.#ws.resume();
  }

  async #handle(bytes: Buffer, lasting: () => void): Promise<void> {
    // Events are sent after the answer that promises them.
    const afterAnswer: (() => void)[] = [];
    const { text } = await this.#api.engine.handle(bytes, this.#session(afterAnswer, lasting));
    if (text !== undefined) await this.#send(text);
    for (const start of afterAnswer) start();
    if (this.#refused !== undefined) this.close(CLOSE.unauthenticated, this.#refused.message);
  }

  #session(afterAnswer: (() => void)[], lasting: () => void): Session {
    const connection: Connection = {
      authenticate: (token) => this.#authenticate(token),
      subscribe: (taskId, afterSeq) => {
        const reserved = this.#reserve(taskId);
        afterAnswer.push(() => this.#subscribe(taskId, afterSeq, reserved));
      },
      unsubscribe: (taskId) => this.#unsubscribe(taskId),
      notify: (method, params) => this.#send(JSON.stringify({ jsonrpc: "2.0", method, params })),
      afterAnswer: (act) => void afterAnswer.push(act),
      closed: this.#gone.signal,
    };
    return {
      caller: () => this.#authenticated(),
      admit: () => this.#api.gate.admit(this.#caller, this.#address),
      signal: this.#gone.signal,
      log: this.#caller === undefined ? this.#log : this.#log.child({ user_id: this.#caller.user_id }),
      connection,
      lasting,
    };
  }

  /** The caller as the token says now: it may have been revoked, or given another role, since. */
  async #authenticated(): Promise<Caller> {
    await this.#signingIn;
    if (this.#bearer === undefined) {
      throw new AppError("Unauthenticated", "This connection is not signed in.", {
        hint: "Call session.authenticate, or connect with an Authorization header.",
      });
    }
    try {
      this.#caller = await this.#api.gate.authenticate(this.#bearer);
      return this.#caller;
    } catch (thrown) {
      const error = toAppError(thrown);
      if (error.code === "Unauthenticated") this.#refused = error;
      throw error;
    }
  }

  async #authenticate(token: string): Promise<UserView> {
    const attempt = this.#api.gate.authenticate(token).then((caller) => {
      this.signedIn(caller, token);
      return caller;
    });
    const settled = attempt.catch(() => undefined);
    this.#signingIn = settled;
    try {
      const { user_id, username, role } = await attempt;
      return { id: user_id, username, role };
    } finally {
      if (this.#signingIn === settled) this.#signingIn = undefined;
    }
  }

  async #check(): Promise<void> {
    if (this.#bearer === undefined || this.#gone.signal.aborted) return;
    try {
      await this.#authenticated();
    } catch (thrown) {
      const error = toAppError(thrown);
      // A database that is away for a moment is no reason to send everybody off.
      if (error.code === "Unauthenticated") this.close(CLOSE.unauthenticated, error.message);
    }
  }

  #reserve(taskId: string): Subscription {
    const limit = this.#api.config.limits.subscriptionsPerSocket;
    if (this.#subscriptions.size >= limit && !this.#subscriptions.has(taskId)) {
      throw new AppError("RateLimited", `This connection follows ${limit} tasks already.`, {
        hint: "Call agent.unsubscribe for one of them first.",
      });
    }
    this.#unsubscribe(taskId);
    const reserved: Subscription = { stop: () => undefined };
    this.#subscriptions.set(taskId, reserved);
    return reserved;
  }

  #subscribe(taskId: string, afterSeq: number, reserved: Subscription): void {
    // Unsubscribed again, subscribed anew, or closed, while the answer was on its way.
    if (this.#gone.signal.aborted || this.#subscriptions.get(taskId) !== reserved) return;
    reserved.stop = this.#api.feed.subscribe(
      taskId,
      afterSeq,
      (events) => this.#notify(events),
      (error) => {
        if (this.#subscriptions.get(taskId) === reserved) this.#subscriptions.delete(taskId);
        // A watcher that cannot be told more must notice, or it would wait for ever: it comes back for the rest.
        if (error !== undefined) this.close(CLOSE.feedFailed, "the event log cannot be read on");
      },
    );
  }

  #unsubscribe(taskId: string): void {
    this.#subscriptions.get(taskId)?.stop();
    this.#subscriptions.delete(taskId);
  }

  /** Resolves when the peer's side has taken them, so that no more than one page waits per subscription. */
  async #notify(events: readonly TaskEvent[]): Promise<void> {
    await Promise.all(
      events.map((params) => this.#send(JSON.stringify({ jsonrpc: "2.0", method: "agent.event", params }))),
    );
  }

  #send(text: string): Promise<void> {
    if (this.#ws.readyState !== this.#ws.OPEN) return Promise.resolve();
    return new Promise((resolve) => {
      this.#ws.send(text, () => {
        this.#lastFlush = performance.now();
        resolve();
      });
    });
  }

  #heard(): void {
    this.#unanswered = false;
  }

  #ping(): void {
    if (this.#ws.bufferedAmount > 0) {
      // A ping would wait behind what is unsent: judge by whether anything moves.
      if (performance.now() - this.#lastFlush > this.#api.timing.stuck) this.#ws.terminate();
    } else if (this.#unanswered && !this.#ws.isPaused) {
      this.#ws.terminate();
    } else {
      this.#unanswered = true;
      this.#ws.ping();
    }
  }

  #closed(): void {
    this.#gone.abort(new AppError("Cancelled", "The connection was closed."));
    for (const timer of this.#timers) clearTimeout(timer);
    clearTimeout(this.#expiry);
    for (const { stop } of this.#subscriptions.values()) stop();
    this.#subscriptions.clear();
    this.#waiting.length = 0;
    this.#release?.();
  }
}
