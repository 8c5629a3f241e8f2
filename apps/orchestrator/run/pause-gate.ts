import { orAborted } from "#platform/waiting.ts";

/** Holds a run before its next model call while it is paused. */
export class PauseGate {
  #open: PromiseWithResolvers<void> | undefined;
  #since = 0;
  #formerMs = 0;
  readonly #onChange: (paused: boolean) => void;

  /** `onChange` hears of every change, not of repetitions. */
  constructor(onChange: (paused: boolean) => void) {
    this.#onChange = onChange;
  }

  get paused(): boolean {
    return this.#open !== undefined;
  }

  /** How long it has been paused by now, all pauses together, ms. */
  get pausedMs(): number {
    return this.#formerMs + (this.#open === undefined ? 0 : performance.now() - this.#since);
  }

  set(paused: boolean): void {
    if (paused === this.paused) return;
    if (paused) {
      this.#open = Promise.withResolvers<void>();
      this.#since = performance.now();
    } else {
      this.#formerMs = this.pausedMs;
      this.#open?.resolve();
      this.#open = undefined;
    }
    this.#onChange(paused);
  }

  /** Resolves when the run may go on, at once if it is not paused; rejects with what `signal` is aborted with. */
  async pass(signal: AbortSignal): Promise<void> {
    while (this.#open !== undefined) {
      await orAborted(this.#open.promise, signal);
    }
    signal.throwIfAborted();
  }
}
