import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readConfig } from "#platform";
import { costOf, priceOf } from "./prices.ts";

const price = { inputPerMillion: 1_000_000, cachedPerMillion: 250_000, outputPerMillion: 4_000_000 };
const perMillion = fc.integer({ min: 0, max: 1e9 });
const count = fc.integer({ min: 0, max: 2_147_483_647 });

describe("costOf", () => {
  it("[US-3] cached tokens are part of the input, at a price of their own", () => {
    const cost = (input_tokens: number, cached_tokens: number, output_tokens: number) =>
      costOf(price, { input_tokens, cached_tokens, output_tokens });
    expect(cost(100, 0, 10)).toBe(140);
    expect(cost(100, 100, 10)).toBe(65);
    expect(cost(100, 60, 0)).toBe(55);
    // More cached than there was input is nonsense of a provider's: no more than the input is cached.
    expect(cost(100, 1000, 0)).toBe(25);
  });

  it("rounds up once, exactly, whatever the numbers", () => {
    const call = fc.record({
      input: perMillion,
      output: perMillion,
      share: fc.integer({ min: 0, max: 100 }),
    });
    fc.assert(
      fc.property(call, count, count, count, ({ input, output, share }, tokens, cached, output_tokens) => {
        const cachedPerMillion = Math.floor((input * share) / 100);
        const own = { inputPerMillion: input, cachedPerMillion, outputPerMillion: output };
        const used = { input_tokens: tokens, cached_tokens: cached, output_tokens };
        const total = costOf(own, used);
        const hit = Math.min(cached, tokens);
        const exact =
          BigInt(tokens - hit) * BigInt(input) +
          BigInt(hit) * BigInt(cachedPerMillion) +
          BigInt(output_tokens) * BigInt(output);
        expect(BigInt(total) * 1_000_000n - exact).toBeGreaterThanOrEqual(0n);
        expect(BigInt(total) * 1_000_000n - exact).toBeLessThan(1_000_000n);
        // What is held for a call, without a cache, always covers it.
        expect(total).toBeLessThanOrEqual(costOf(own, { ...used, cached_tokens: 0 }));
      }),
    );
  });
});

describe("priceOf", () => {
  const billing = readConfig({
    CDS_PRICE_INPUT_PER_MILLION: "100",
    CDS_PRICE_CACHED_PER_MILLION: "10",
  }).billing;

  it("takes the model's own, else the server's; an own price without one for cached tokens has no discount", () => {
    const server = { inputPerMillion: 100, cachedPerMillion: 10, outputPerMillion: billing.outputPerMillion };
    expect(priceOf(undefined, billing)).toEqual(server);
    const none = {
      input_cost_per_million: null,
      cached_cost_per_million: null,
      output_cost_per_million: null,
    };
    expect(priceOf(none, billing)).toEqual(server);
    const own = { input_cost_per_million: 5, cached_cost_per_million: null, output_cost_per_million: 7 };
    expect(priceOf(own, billing)).toEqual({ inputPerMillion: 5, cachedPerMillion: 5, outputPerMillion: 7 });
    expect(priceOf({ ...own, cached_cost_per_million: 0 }, billing).cachedPerMillion).toBe(0);
  });

  it("of cached input is the input price until one is set, and never above it", () => {
    expect(readConfig({ CDS_PRICE_INPUT_PER_MILLION: "7" }).billing.cachedPerMillion).toBe(7);
    const above = { CDS_PRICE_INPUT_PER_MILLION: "7", CDS_PRICE_CACHED_PER_MILLION: "8" };
    expect(() => readConfig(above)).toThrow("CDS_PRICE_CACHED_PER_MILLION");
  });
});
