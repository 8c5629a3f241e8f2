import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "./log.ts";

interface Closer {
  name: string;
  close: () => Promise<void> | void;
  timeoutMs: number;
}

/**
 * What has been started, closed in the opposite order. Each closer has its own time-out, and one that
 * fails or hangs does not keep the others from closing.
 */
export class Lifecycle implements AsyncDisposable {
  readonly #log: Log;
  readonly #closers: Closer[] = [];
  #closing: Promise<string[]> | undefined;

  constructor(log: Log) {
    this.#log = log;
  }

  /** Register what ends a part. `timeoutMs` defaults to 10,000. */
  add(name: string, close: () => Promise<void> | void, timeoutMs = 10_000): void {
    this.#closers.push({ name, close, timeoutMs });
  }

  /** Close everything once; a second call waits for the first. Answers the names of what did not close. */
  close(): Promise<string[]> {
    this.#closing ??= this.#closeAll();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #closeAll(): Promise<string[]> {
    const failed: string[] = [];
    for (let closer = this.#closers.pop(); closer !== undefined; closer = this.#closers.pop()) {
      if (!(await this.#closeOne(closer))) failed.push(closer.name);
    }
    return failed;
  }

  async #closeOne({ name, close, timeoutMs }: Closer): Promise<boolean> {
    const timer = new AbortController();
    const started = performance.now();
    try {
      const late = sleep(timeoutMs, "late" as const, { signal: timer.signal });
      late.catch(() => undefined);
      const outcome = await Promise.race([Promise.resolve(close()), late]);
      const ms = Math.round(performance.now() - started);
      if (outcome === "late") this.#log.error({ part: name, ms }, "did not close in time");
      else this.#log.debug({ part: name, ms }, "closed");
      return outcome !== "late";
    } catch (error) {
      this.#log.error({ part: name, err: error }, "failed to close");
      return false;
    } finally {
      timer.abort();
    }
  }
}
