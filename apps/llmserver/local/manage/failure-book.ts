import { AppError } from "#schemas";
import { crashedTooOften } from "./failures.ts";

/** So many crashes within so long, and the model rests for so long. */
const CRASHES = 3;
const WITHIN_MS = 60_000;
const REST_MS = 30_000;

/** What went wrong with one model of late: it is not started over and over again. */
export class FailureBook {
  readonly #now: () => number;
  #crashes: number[] = [];
  /** No start before `until`, because of `why`. */
  #rest: { until: number; why: (secondsLeft: number) => AppError } | undefined;

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** Its process ended by itself. */
  crashed(): void {
    const now = this.#now();
    this.#crashes = [...this.#crashes.filter((at) => at > now - WITHIN_MS), now];
    if (this.#crashes.length < CRASHES) return;
    const times = this.#crashes.length;
    this.#crashes = [];
    this.#rest = { until: now + REST_MS, why: (seconds) => crashedTooOften(times, seconds) };
  }

  /** Loading it failed. A broken file is as broken the next time; what the machine lacked may be there then. */
  failed(error: unknown): void {
    if (!(error instanceof AppError)) return;
    if (error.code === "EngineUnavailable") this.crashed();
    if (error.code === "InvalidModel") this.#rest = { until: this.#now() + REST_MS, why: () => error };
  }

  /** @throws AppError while it rests. */
  check(): void {
    if (this.#rest === undefined) return;
    const left = this.#rest.until - this.#now();
    if (left > 0) throw this.#rest.why(Math.ceil(left / 1000));
    this.#rest = undefined;
  }

  /** Somebody who knows better wants it started, or it is another file now. */
  clear(): void {
    this.#crashes = [];
    this.#rest = undefined;
  }
}
