import type { Config } from "#platform/config/config.ts";

/** Micro-credits per million tokens. */
export interface Price {
  readonly inputPerMillion: number;
  /** Of the input tokens the provider had cached. Never above `inputPerMillion`: holds reckon without a cache. */
  readonly cachedPerMillion: number;
  readonly outputPerMillion: number;
}

/** What a call used, or may use at most; the cached tokens are part of the input. */
export interface Tokens {
  readonly input_tokens: number;
  readonly cached_tokens: number;
  readonly output_tokens: number;
}

/** A model's own columns; all null where it has no price of its own, or no row. */
export interface PriceColumns {
  readonly input_cost_per_million: number | null;
  readonly cached_cost_per_million: number | null;
  readonly output_cost_per_million: number | null;
}

/** What a model costs: its own price, else the server's. An own price without one for cached tokens has no discount. */
export function priceOf(own: PriceColumns | undefined, billing: Config["billing"]): Price {
  const input = own?.input_cost_per_million ?? null;
  return {
    inputPerMillion: input ?? billing.inputPerMillion,
    cachedPerMillion: own?.cached_cost_per_million ?? input ?? billing.cachedPerMillion,
    outputPerMillion: own?.output_cost_per_million ?? billing.outputPerMillion,
  };
}

/** Micro-credits, rounded up once: exact for any amount that is a safe integer. */
export function costOf(price: Price, { input_tokens, cached_tokens, output_tokens }: Tokens): number {
  const cached = Math.min(cached_tokens, input_tokens);
  const millionths =
    BigInt(input_tokens - cached) * BigInt(price.inputPerMillion) +
    BigInt(cached) * BigInt(price.cachedPerMillion) +
    BigInt(output_tokens) * BigInt(price.outputPerMillion);
  return Number((millionths + 999_999n) / 1_000_000n);
}
