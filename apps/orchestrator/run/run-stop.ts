/**
 * Why a run is ended from outside: its user, the lease, the server, the clock, silence, events that cannot be
 * stored, too much written to disk, or a pause that lasted too long.
 */
export type StopReason =
  | "cancelled"
  | "lost"
  | "shutdown"
  | "timeout"
  | "silence"
  | "events"
  | "disk"
  | "paused";

/** Thrown where a run was waiting when it was stopped. */
export class RunStopped extends Error {
  readonly reason: StopReason;

  constructor(reason: StopReason) {
    super(`stopped: ${reason}`);
    this.name = "RunStopped";
    this.reason = reason;
  }
}

/** Ends one run; the first reason counts, but for a lost lease, which silences every other. */
export class RunStop {
  readonly #abort = new AbortController();
  readonly #stopped = Promise.withResolvers<never>();
  #reason: StopReason | undefined;

  constructor() {
    this.#stopped.promise.catch(() => undefined);
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  get reason(): StopReason | undefined {
    return this.#reason;
  }

  /** Rejects with RunStopped once the run is stopped. */
  get stopped(): Promise<never> {
    return this.#stopped.promise;
  }

  stop(reason: StopReason): void {
    if (this.#reason === undefined || reason === "lost") this.#reason = reason;
    if (this.#abort.signal.aborted) return;
    const error = new RunStopped(reason);
    this.#abort.abort(error);
    this.#stopped.reject(error);
  }
}
