import type { Token } from "node-llama-cpp";
import { Refusal } from "./refusal.ts";
import type { Slot } from "./slot.ts";

/** A shorter common beginning is not worth choosing a sequence for, tokens. */
const WORTHWHILE_PREFIX = 8;
/** Where nothing was measured yet, seconds. */
const FIRST_RETRY_AFTER = 2;
const MAX_RETRY_AFTER = 60;

interface Waiter {
  prompt: Token[];
  take: (slot: Slot) => void;
}

/** The sequences of a model and the line in front of them: first come, first served. */
export class Slots {
  readonly #free: Slot[];
  readonly #total: number;
  readonly #maxWaiting: number;
  readonly #line: Waiter[] = [];
  /** How long a choice takes, ms, lately. */
  #duration: number | undefined;

  constructor(slots: readonly Slot[], maxWaiting: number) {
    this.#free = [...slots];
    this.#total = slots.length;
    this.#maxWaiting = maxWaiting;
  }

  get total(): number {
    return this.#total;
  }

  /** Whether one more request may join the line. @throws Refusal 429. */
  admit(): void {
    if (this.#line.length < this.#maxWaiting || this.#free.length > 0) return;
    const rounds = Math.ceil((this.#line.length + 1) / this.#total);
    const seconds =
      this.#duration === undefined ? FIRST_RETRY_AFTER : Math.ceil((rounds * this.#duration) / 1000);
    throw new Refusal({
      status: 429,
      message: `This model is answering ${this.#total} requests and ${this.#line.length} more are waiting for it. Try again later.`,
      code: "engine_overloaded",
      retry_after_seconds: Math.min(MAX_RETRY_AFTER, Math.max(1, seconds)),
    });
  }

  /**
   * Do `work` on a sequence of its own, on the one that has most of `prompt` in its context already.
   * @throws the signal's reason, having left the line.
   */
  async use<T>(prompt: Token[], signal: AbortSignal, work: (slot: Slot) => Promise<T>): Promise<T> {
    const slot = await this.#acquire(prompt, signal);
    const startedAt = performance.now();
    try {
      return await work(slot);
    } finally {
      const took = performance.now() - startedAt;
      this.#duration = ((this.#duration ?? took) + took) / 2;
      this.#release(slot);
    }
  }

  async #acquire(prompt: Token[], signal: AbortSignal): Promise<Slot> {
    signal.throwIfAborted();
    const free = this.#best(prompt);
    if (free !== undefined) return free;
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        prompt,
        take: (slot) => {
          signal.removeEventListener("abort", leave);
          resolve(slot);
        },
      };
      const leave = () => {
        this.#line.splice(this.#line.indexOf(waiter), 1);
        reject(signal.reason);
      };
      signal.addEventListener("abort", leave, { once: true });
      this.#line.push(waiter);
    });
  }

  #release(slot: Slot): void {
    this.#free.push(slot);
    const next = this.#line.shift();
    if (next === undefined) return;
    const best = this.#best(next.prompt);
    if (best !== undefined) next.take(best);
  }

  /** Takes a free one: with the longest common beginning; else the one whose content is the oldest or empty. */
  #best(prompt: Token[]): Slot | undefined {
    const rated = this.#free.map((slot) => {
      const shared = slot.sharedPrefix(prompt);
      return { slot, shared: shared < WORTHWHILE_PREFIX ? 0 : shared };
    });
    rated.sort((a, b) => b.shared - a.shared || a.slot.lastUsed - b.slot.lastUsed || a.slot.id - b.slot.id);
    const best = rated[0]?.slot;
    if (best !== undefined) this.#free.splice(this.#free.indexOf(best), 1);
    return best;
  }
}
