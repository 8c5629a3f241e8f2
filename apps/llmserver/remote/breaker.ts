import { LRUCache } from "lru-cache";

interface State {
  failures: number;
  /** ms; calls are refused until then. */
  openUntil: number;
  probing: boolean;
}

/**
 * A circuit breaker per provider and user: after `threshold` calls in a row that failed for the provider's
 * fault, calls are refused at once for `coolMs`; then one is let through to try, and decides.
 */
export class Breakers {
  readonly #states = new LRUCache<string, State>({ max: 10_000 });
  readonly #threshold: number;
  readonly #coolMs: number;
  readonly #now: () => number;

  constructor(options: { threshold?: number; coolMs?: number; now?: () => number } = {}) {
    this.#threshold = options.threshold ?? 5;
    this.#coolMs = options.coolMs ?? 15_000;
    this.#now = options.now ?? (() => performance.now());
  }

  /** Seconds to wait, or undefined when the call may go ahead. Whoever goes ahead must report back. */
  enter(key: string): number | undefined {
    const state = this.#states.get(key);
    if (state === undefined || state.failures < this.#threshold) return undefined;
    const wait = state.openUntil - this.#now();
    if (wait > 0) return Math.max(1, Math.ceil(wait / 1000));
    if (state.probing) return 1;
    state.probing = true;
    return undefined;
  }

  succeeded(key: string): void {
    this.#states.delete(key);
  }

  failed(key: string): void {
    const state = this.#states.get(key) ?? { failures: 0, openUntil: 0, probing: false };
    state.failures += 1;
    state.probing = false;
    state.openUntil = this.#now() + this.#coolMs;
    this.#states.set(key, state);
  }

  /** The call ended without telling anything about the provider (the caller left, for instance). */
  undecided(key: string): void {
    const state = this.#states.get(key);
    if (state !== undefined) state.probing = false;
  }
}
