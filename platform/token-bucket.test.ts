import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { rateLimited, TokenBuckets } from "./token-bucket.ts";

function clocked(options: { perSecond: number; burst: number; maxKeys?: number }) {
  const clock = { ms: 0 };
  return { clock, buckets: new TokenBuckets({ ...options, now: () => clock.ms }) };
}

describe("token buckets", () => {
  it("[GW-2] let a burst through, then the sustained rate, each key on its own", () => {
    const { clock, buckets } = clocked({ perSecond: 2, burst: 3 });
    expect([1, 2, 3].map(() => buckets.take("a").ok)).toEqual([true, true, true]);
    expect(buckets.take("a")).toEqual({ ok: false, retryAfterSeconds: 0.5 });
    expect(buckets.take("b").ok).toBe(true);
    clock.ms = 500;
    expect(buckets.take("a").ok).toBe(true);
    expect(buckets.take("a").ok).toBe(false);
    expect(() => buckets.takeOrThrow("a")).toThrow("Too many requests.");
    clock.ms = 60_000;
    expect(() => buckets.takeOrThrow("a", 3)).not.toThrow();
  });

  it("takes back what did not count, never above the burst", () => {
    const { buckets } = clocked({ perSecond: 1, burst: 2 });
    buckets.takeOrThrow("a", 2);
    buckets.refund("a");
    expect(buckets.take("a").ok).toBe(true);
    expect(buckets.take("a").ok).toBe(false);
    buckets.refund("a", 50);
    expect(buckets.take("a", 2).ok).toBe(true);
    expect(buckets.take("a").ok).toBe(false);
  });

  it("counts a cost above the burst as the burst", () => {
    const { buckets } = clocked({ perSecond: 1, burst: 5 });
    expect(buckets.take("a", 50).ok).toBe(true);
    expect(buckets.take("a", 50)).toEqual({ ok: false, retryAfterSeconds: 5 });
  });

  it("remembers a bounded number of keys", () => {
    const { buckets } = clocked({ perSecond: 1, burst: 1, maxKeys: 10 });
    for (let key = 0; key < 1000; key++) buckets.take(String(key));
    expect(buckets.take("999").ok).toBe(false);
    expect(buckets.take("0").ok).toBe(true);
  });

  it("says whole seconds to wait, at least one", () => {
    expect(rateLimited(0.01).details.retry_after_seconds).toBe(1);
    expect(rateLimited(1.2)).toMatchObject({ code: "RateLimited", details: { retry_after_seconds: 2 } });
    expect(new TokenBuckets({ perSecond: 1, burst: 1 }).take("now").ok).toBe(true);
  });

  it("never lets through more than burst + rate x time, whatever the pattern", () => {
    const steps = fc.array(fc.record({ wait: fc.nat(2000), cost: fc.integer({ min: 1, max: 4 }) }), {
      maxLength: 100,
    });
    fc.assert(
      fc.property(steps, (pattern) => {
        const { clock, buckets } = clocked({ perSecond: 3, burst: 5 });
        let passed = 0;
        for (const { wait, cost } of pattern) {
          clock.ms += wait;
          if (buckets.take("a", cost).ok) passed += cost;
          expect(passed).toBeLessThanOrEqual(5 + (clock.ms / 1000) * 3 + 1e-6);
        }
      }),
    );
  });
});
