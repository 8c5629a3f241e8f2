import { setTimeout as sleep } from "node:timers/promises";
import { Agent, type Dispatcher, request } from "undici";
import type { Config } from "#platform/config/config.ts";
import type { Log } from "#platform/log.ts";
import { ApiError } from "../api-error.ts";
import { Breakers } from "./breaker.ts";
import { connector } from "./connector.ts";
import { Deadline } from "./deadline.ts";
import { readEvents, readText } from "./events.ts";
import { connectionFailure, type Failure, statusFailure } from "./failures.ts";
import { createRedactor, type Redactor } from "./redact.ts";

/** Marks our own requests, so that a provider that is this very server is noticed. */
export const HOP_HEADER = "x-cyberdevstudio-hop";

const MAX_ERROR_BYTES = 65_536;
const MAX_ANSWER_BYTES = 32 * 1024 * 1024;
const FIRST_BACKOFF_MS = 250;
const LONGEST_BACKOFF_MS = 4000;
/** A whole answer comes when all of it is there: so much longer than a stream's first byte. */
const WHOLE_ANSWER_FACTOR = 5;
const DRAIN_MS = 1000;

export interface RemoteCall {
  base_url: string;
  /** Below the base URL: `chat/completions`, for instance. */
  path: string;
  /** The operator's own base URL: it may lead to a private network whatever users' may. */
  trusted: boolean;
  api_key: string;
  user_id: string;
  body: Record<string, unknown>;
  stream: boolean;
  /** Ends the call at once; its reason is what the call fails with. */
  abort: AbortController;
}

/** An answer with status 200 that has begun. */
export interface RemoteAnswer extends Disposable {
  readonly redactor: Redactor;
  /** The data of a stream's events, those of one network chunk at a time. */
  batches(): AsyncIterable<string[]>;
  /** The text of a whole answer. */
  text(): Promise<string>;
  /** Nothing more is wanted, all was well: the connection may be used again. */
  finish(): void;
  /** What the answer said about the provider's health. */
  report(healthy: boolean): void;
}

/** The client for every OpenAI-compatible provider: checked addresses, time-outs, retries, circuit breakers. */
export class RemoteProviders {
  readonly #config: Config["provider"];
  readonly #log: Log;
  /** Connections to users' providers, and to the operator's. */
  readonly #agents: Record<"users" | "trusted", Agent>;
  readonly #breakers: Breakers;

  constructor(config: Config["provider"], log: Log, breakers: Breakers = new Breakers()) {
    this.#config = config;
    this.#log = log;
    this.#breakers = breakers;
    const agent = (allowPrivate: boolean) =>
      new Agent({
        connect: connector(config.connectTimeoutMs, allowPrivate),
        allowH2: false,
        pipelining: 1,
        keepAliveTimeout: 15_000,
      });
    this.#agents = { users: agent(config.allowPrivateHosts), trusted: agent(true) };
  }

  /** End every connection. */
  async close(): Promise<void> {
    await Promise.all([this.#agents.users.destroy(), this.#agents.trusted.destroy()]);
  }

  /**
   * Send a request and wait for the head of its answer; tries again by class of failure.
   * @throws ApiError, or the reason of `abort`.
   */
  async post(call: RemoteCall): Promise<RemoteAnswer> {
    const url = endpoint(call.base_url, call.path);
    const key = `${url.host} ${call.user_id}`;
    const wait = this.#breakers.enter(key);
    if (wait !== undefined) {
      throw new ApiError(503, "The provider failed several times in a row; it gets a pause.", {
        code: "provider_paused",
        retryAfterSeconds: wait,
      });
    }
    try {
      return await this.#attempts(call, url, key);
    } catch (error) {
      // Whatever is not known to be the provider's doing frees the place of a probe.
      this.#breakers.undecided(key);
      throw error;
    }
  }

  async #attempts(call: RemoteCall, url: URL, key: string): Promise<RemoteAnswer> {
    const redactor = createRedactor(call.api_key);
    for (let attempt = 1; ; attempt += 1) {
      const result = await this.#attempt(call, url, key, redactor);
      if (!("error" in result)) return result;
      const last = attempt >= this.#config.attempts || !result.retry;
      this.#log.warn(
        { host: url.host, attempt, status: result.error.status, last },
        "a provider call failed",
      );
      if (last) {
        if (result.providersFault) this.#breakers.failed(key);
        throw result.error;
      }
      await sleep(backoffMs(attempt, result), undefined, { signal: call.abort.signal }).catch(
        () => undefined,
      );
      call.abort.signal.throwIfAborted();
    }
  }

  async #attempt(
    call: RemoteCall,
    url: URL,
    key: string,
    redactor: Redactor,
  ): Promise<RemoteAnswer | Failure> {
    const { signal } = call.abort;
    const deadline = new Deadline(() => {
      this.#breakers.failed(key);
      call.abort.abort(
        new ApiError(504, "The provider did not answer in time.", {
          code: "provider_timeout",
          shouldRetry: false,
        }),
      );
    });
    let handedOver = false;
    try {
      const firstByteMs = this.#config.firstByteTimeoutMs * (call.stream ? 1 : WHOLE_ANSWER_FACTOR);
      deadline.arm(firstByteMs + this.#config.connectTimeoutMs);
      const response = await request(url, {
        dispatcher: this.#agents[call.trusted ? "trusted" : "users"],
        method: "POST",
        headers: headersFor(call),
        body: JSON.stringify(call.body),
        signal,
        // Our own deadline is exact to the millisecond and knows when the reader is the slow one.
        headersTimeout: 0,
        bodyTimeout: 0,
      });
      if (response.statusCode !== 200) {
        const text = await readText(response.body, MAX_ERROR_BYTES, true);
        return statusFailure(response.statusCode, response.headers["retry-after"], text, redactor);
      }
      handedOver = true;
      return this.#answer(response, deadline, key, redactor);
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      return connectionFailure(error);
    } finally {
      if (!handedOver) deadline[Symbol.dispose]();
    }
  }

  #answer(
    response: Dispatcher.ResponseData,
    deadline: Deadline,
    key: string,
    redactor: Redactor,
  ): RemoteAnswer {
    const { body } = response;
    // An error after the reader has left has nobody to go to.
    body.on("error", () => undefined);
    const idleMs = this.#config.idleTimeoutMs;
    let begun = false;
    const watch = {
      // Until the first byte the deadline of the attempt goes on.
      waiting: () => void (begun && deadline.arm(idleMs)),
      arrived: () => {
        begun = true;
        deadline.disarm();
      },
    };
    const breakers = this.#breakers;
    let finished = false;
    return {
      redactor,
      batches: () => readEvents(body.iterator({ destroyOnReturn: false }), watch),
      text: () => readText(body, MAX_ANSWER_BYTES, false).finally(() => deadline.disarm()),
      finish() {
        finished = true;
        deadline.disarm();
        body
          .dump({ limit: MAX_ERROR_BYTES, signal: AbortSignal.timeout(DRAIN_MS) })
          .catch(() => body.destroy());
      },
      report: (healthy) => (healthy ? breakers.succeeded(key) : breakers.failed(key)),
      [Symbol.dispose]() {
        deadline[Symbol.dispose]();
        // Cut short by its reader, a call that was let through to try has told nothing.
        breakers.undecided(key);
        if (!finished) body.destroy();
      },
    };
  }
}

/** `<base>/<path>`, keeping a query string some providers want. */
function endpoint(base_url: string, path: string): URL {
  const url = URL.canParse(base_url) ? new URL(base_url) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.username !== "" || url.password !== "") {
    throw new ApiError(400, "The provider's base URL must be http(s) and hold no user name.", {
      code: "provider_invalid_url",
    });
  }
  url.pathname = `${url.pathname.replace(/\/+$/, "")}/${path}`;
  return url;
}

function headersFor(call: RemoteCall): Record<string, string> {
  return {
    authorization: `Bearer ${call.api_key}`,
    "content-type": "application/json",
    accept: call.stream ? "text/event-stream" : "application/json",
    "accept-encoding": "identity",
    "user-agent": "cyberdevstudio",
    [HOP_HEADER]: "1",
  };
}

/** Twice as long each time, between half and all of it so that callers do not come back in step, ms. */
function backoffMs(attempt: number, failure: Failure): number {
  const ceiling = Math.min(LONGEST_BACKOFF_MS, FIRST_BACKOFF_MS * 2 ** (attempt - 1));
  const backoff = ceiling * (0.5 + Math.random() / 2);
  return Math.max(backoff, (failure.afterSeconds ?? 0) * 1000);
}
