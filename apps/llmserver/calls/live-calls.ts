import { setTimeout as sleep } from "node:timers/promises";
import { ApiError } from "../api-error.ts";

/** The calls in flight, so that a server that stops can end and charge every one of them. */
export class LiveCalls {
  readonly #calls = new Map<Promise<void>, AbortController>();
  #closing = false;

  get size(): number {
    return this.#calls.size;
  }

  /**
   * Run one call; `abort` is what ends it early.
   * @throws ApiError 503 when the server stops.
   */
  async run<T>(fn: (abort: AbortController) => Promise<T>): Promise<T> {
    if (this.#closing) throw stopping();
    const abort = new AbortController();
    const result = fn(abort);
    const ended = result.then(
      () => undefined,
      () => undefined,
    );
    this.#calls.set(ended, abort);
    try {
      return await result;
    } finally {
      this.#calls.delete(ended);
    }
  }

  /** Take no more, let calls finish for `graceMs`, then end them; resolves when each has been charged. */
  async close(graceMs: number, settleMs = 10_000): Promise<void> {
    this.#closing = true;
    await this.#ended(graceMs);
    for (const abort of this.#calls.values()) abort.abort(stopping());
    await this.#ended(settleMs);
  }

  async #ended(ms: number): Promise<void> {
    const timer = new AbortController();
    const late = sleep(ms, undefined, { signal: timer.signal }).catch(() => undefined);
    await Promise.race([Promise.all(this.#calls.keys()), late]);
    timer.abort();
  }
}

function stopping(): ApiError {
  return new ApiError(503, "The server is shutting down.", { code: "unavailable", retryAfterSeconds: 5 });
}
