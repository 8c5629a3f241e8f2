import { LRUCache } from "lru-cache";
import { AppError } from "#schemas";

export type Take = { ok: true } | { ok: false; retryAfterSeconds: number };

interface Bucket {
  tokens: number;
  /** ms */
  at: number;
}

/**
 * One token bucket per key (an address, a user): `burst` at once, `perSecond` sustained. Bounded: beyond
 * `maxKeys` the key seen longest ago is forgotten, which gives it a full bucket again.
 */
export class TokenBuckets {
  readonly #perSecond: number;
  readonly #burst: number;
  readonly #buckets: LRUCache<string, Bucket>;
  readonly #now: () => number;

  constructor(options: { perSecond: number; burst: number; maxKeys?: number; now?: () => number }) {
    this.#perSecond = options.perSecond;
    this.#burst = options.burst;
    this.#buckets = new LRUCache({ max: options.maxKeys ?? 100_000 });
    this.#now = options.now ?? (() => performance.now());
  }

  /** Take `cost` tokens, or none. A cost above the burst counts as the burst, else it could never pass. */
  take(key: string, cost = 1): Take {
    const bucket = this.#refilled(key);
    const price = Math.min(cost, this.#burst);
    if (bucket.tokens < price) {
      return { ok: false, retryAfterSeconds: (price - bucket.tokens) / this.#perSecond };
    }
    bucket.tokens -= price;
    return { ok: true };
  }

  /** Give back what was taken, when it turned out not to count. */
  refund(key: string, cost = 1): void {
    const bucket = this.#refilled(key);
    bucket.tokens = Math.min(this.#burst, bucket.tokens + cost);
  }

  /** Take what has been used already, below zero if need be: until it is made up for, nothing can be taken. */
  charge(key: string, cost: number): void {
    this.#refilled(key).tokens -= cost;
  }

  /** What could be taken now, and seconds until the bucket is full again. */
  state(key: string): { left: number; fullInSeconds: number } {
    const { tokens } = this.#refilled(key);
    return { left: Math.max(0, Math.floor(tokens)), fullInSeconds: (this.#burst - tokens) / this.#perSecond };
  }

  /** As `take`, but refusing is an AppError RateLimited with the seconds to wait. */
  takeOrThrow(key: string, cost = 1): void {
    const taken = this.take(key, cost);
    if (!taken.ok) throw rateLimited(taken.retryAfterSeconds);
  }

  #refilled(key: string): Bucket {
    const now = this.#now();
    const bucket = this.#buckets.get(key) ?? { tokens: this.#burst, at: now };
    bucket.tokens = Math.min(this.#burst, bucket.tokens + ((now - bucket.at) / 1000) * this.#perSecond);
    bucket.at = now;
    this.#buckets.set(key, bucket);
    return bucket;
  }
}

export function rateLimited(retryAfterSeconds: number): AppError {
  const seconds = Math.max(1, Math.ceil(retryAfterSeconds));
  return new AppError("RateLimited", "Too many requests.", {
    hint: `Try again in ${seconds} s.`,
    retry_after_seconds: seconds,
  });
}
