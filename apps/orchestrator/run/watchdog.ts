/** How often silence is looked at, as a share of what is allowed. */
const CHECKS = 10;
/** A tool may work this long without a word: opencode's shell ends a command after 120 s. */
const TOOL_SILENCE_MS = 130_000;

export interface WatchdogOptions {
  /** Longest run, ms. */
  readonly timeoutMs: number;
  /** Longest time without a sign of life while no tool is at work, ms. */
  readonly silenceMs: number;
  toolRunning(): boolean;
  onTimeout(): void;
  onSilence(): void;
}

/** Ends a run that takes too long or has gone silent. */
export class Watchdog implements Disposable {
  readonly #options: WatchdogOptions;
  readonly #wall: NodeJS.Timeout;
  readonly #check: NodeJS.Timeout;
  #lastSign = performance.now();

  constructor(options: WatchdogOptions) {
    this.#options = options;
    this.#wall = setTimeout(() => options.onTimeout(), options.timeoutMs);
    this.#check = setInterval(() => this.#look(), Math.max(20, options.silenceMs / CHECKS));
  }

  /** Something came from the agent or its model. */
  alive(): void {
    this.#lastSign = performance.now();
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#wall);
    clearInterval(this.#check);
  }

  #look(): void {
    const { silenceMs, toolRunning, onSilence } = this.#options;
    const allowed = toolRunning() ? Math.max(silenceMs, TOOL_SILENCE_MS) : silenceMs;
    if (performance.now() - this.#lastSign > allowed) onSilence();
  }
}
