import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "#platform/log.ts";
import { AppError } from "#schemas";
import { Deadline } from "../remote/deadline.ts";
import { cancelled, downloadFailed, sortFailure, TransientFailure } from "./failures.ts";

/** Failures in a row, without anything new arriving, after which one gives up. */
const MAX_FAILURES = 6;
const FIRST_BACKOFF_MS = 500;
const LONGEST_BACKOFF_MS = 15_000;
/** Longer waits the other side asks for are cut to this: a hub that says "tomorrow" is tried again and given up. */
const LONGEST_RETRY_AFTER_MS = 60_000;
/** Less than this within the idle time-out is silence, and no progress: a trickle would hold a download for ever. */
export const PROGRESS_BYTES = 16_384;

export interface AttemptOptions {
  signal: AbortSignal;
  log: Log;
  idleTimeoutMs: number;
  /** Default 500 ms; doubled by every failure in a row. */
  firstBackoffMs?: number | undefined;
}

/** One attempt: ends by the caller's signal, or when the other side is silent for too long. */
export class Attempt implements Disposable {
  readonly signal: AbortSignal;
  /** Set when something new was gained: then its failure is the first in a row again. */
  progressed = false;
  readonly #silence = new AbortController();
  readonly #deadline: Deadline;
  readonly #idleMs: number;
  #sinceArmed = 0;

  constructor({ signal, idleTimeoutMs }: AttemptOptions) {
    this.#idleMs = idleTimeoutMs;
    this.#deadline = new Deadline(() => this.#silence.abort());
    this.#deadline.arm(idleTimeoutMs);
    this.signal = AbortSignal.any([signal, this.#silence.signal]);
  }

  get silent(): boolean {
    return this.#silence.signal.aborted;
  }

  /** So many bytes of a file came from the other side. */
  arrived(bytes: number): void {
    this.#sinceArmed += bytes;
    if (this.#sinceArmed >= PROGRESS_BYTES) this.alive();
  }

  /** The other side has done all that was asked of it so far. */
  alive(): void {
    this.#sinceArmed = 0;
    this.#deadline.arm(this.#idleMs);
  }

  [Symbol.dispose](): void {
    this.#deadline[Symbol.dispose]();
  }
}

/**
 * Do something with the network until it succeeds: broken connections, silence, status 429 and 5xx are tried again
 * after a growing pause, up to six times without progress.
 * @throws AppError: Cancelled within moments of the signal, DownloadFailed, or what `work` throws.
 */
export async function withAttempts<T>(
  options: AttemptOptions,
  work: (attempt: Attempt) => Promise<T>,
): Promise<T> {
  const { signal, log } = options;
  let failures = 0;
  for (;;) {
    using attempt = new Attempt(options);
    try {
      if (signal.aborted) throw cancelled(signal);
      return await work(attempt);
    } catch (error) {
      if (signal.aborted) throw cancelled(signal);
      const failure = attempt.silent ? silence() : sortFailure(error);
      failures = attempt.progressed ? 1 : failures + 1;
      log.warn(
        { code: codeOf(error), failures, message: failure.message },
        "an attempt of a download failed",
      );
      if (failure instanceof AppError) throw failure;
      if (failures >= MAX_FAILURES) throw failure.answer;
      await pause(backoffMs(failures, failure.afterSeconds, options.firstBackoffMs), signal);
    }
  }
}

/** How long to wait after so many failures in a row, ms: with some chance, so that many do not come back in step. */
export function backoffMs(failures: number, afterSeconds = 0, firstMs = FIRST_BACKOFF_MS): number {
  const ceiling = Math.min(LONGEST_BACKOFF_MS, firstMs * 2 ** (failures - 1));
  const asked = Math.min(LONGEST_RETRY_AFTER_MS, afterSeconds * 1000);
  return Math.max(ceiling * (0.5 + Math.random() / 2), asked);
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return sleep(ms, undefined, { signal }).catch(() => {
    throw cancelled(signal);
  });
}

function silence(): TransientFailure {
  return new TransientFailure(
    downloadFailed("The model hub sends nothing.", "Try again later; what has arrived is kept."),
  );
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error ? String(error.code) : undefined;
}
