/** How often time is looked at, as a share of what is allowed; at least every second. */
const CHECKS = 20;
const MAX_CHECK_MS = 1000;
const MIN_CHECK_MS = 20;
/** A tool may work this long without a word: a shell's command is ended after 120 s. */
const TOOL_SILENCE_MS = 130_000;

export interface WatchdogOptions {
  /** Longest run, ms; while it is paused or its result is tried out the clock stands still. */
  readonly timeoutMs: number;
  /** Longest time without a sign of life while no tool is at work and nothing is validated, ms. */
  readonly silenceMs: number;
  toolRunning(): boolean;
  onTimeout(): void;
  onSilence(): void;
}

/** Ends a run that takes too long or has gone silent. */
export class Watchdog implements Disposable {
  readonly #options: WatchdogOptions;
  readonly #check: NodeJS.Timeout;
  #lookedAt = performance.now();
  #spentMs = 0;
  #silentMs = 0;
  #busyMs = 0;
  #paused = false;
  #busy = false;

  constructor(options: WatchdogOptions) {
    this.#options = options;
    const everyMs = Math.min(options.silenceMs, options.timeoutMs) / CHECKS;
    this.#check = setInterval(() => this.#look(), Math.min(MAX_CHECK_MS, Math.max(MIN_CHECK_MS, everyMs)));
  }

  /** Something came from the agent or its model. */
  alive(): void {
    this.#silentMs = 0;
  }

  /** Both clocks stand still while the run does. */
  set paused(paused: boolean) {
    this.#look();
    this.#paused = paused;
  }

  /**
   * A result is being tried out, which says nothing meanwhile. The agent's clock stands still, and the trial gets one of
   * its own: it may take as long as a run.
   */
  set busy(busy: boolean) {
    this.#look();
    this.#busy = busy;
    this.#busyMs = 0;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#check);
  }

  #look(): void {
    const now = performance.now();
    const passed = now - this.#lookedAt;
    this.#lookedAt = now;
    if (this.#paused) return;
    const { timeoutMs, silenceMs, toolRunning, onTimeout, onSilence } = this.#options;
    if (this.#busy) {
      this.#silentMs = 0;
      this.#busyMs += passed;
    } else {
      this.#silentMs += passed;
      this.#spentMs += passed;
    }
    if (Math.max(this.#spentMs, this.#busyMs) > timeoutMs) onTimeout();
    const allowed = toolRunning() ? Math.max(silenceMs, TOOL_SILENCE_MS) : silenceMs;
    if (this.#silentMs > allowed) onSilence();
  }
}
