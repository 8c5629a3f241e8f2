import type { Config } from "#platform/config/config.ts";
import type { Db } from "../schema.ts";

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

/** A model's own price in micro-credits per million tokens; `cached` null = as `input`. */
export interface OwnPrice {
  readonly model: string;
  readonly input: number;
  readonly cached: number | null;
  readonly output: number;
}

/** Models with a price of their own, by name; `after`: only those behind it. */
export async function listPrices(
  db: Db,
  { after, limit }: { after?: string | undefined; limit: number },
): Promise<{ prices: OwnPrice[]; more: boolean }> {
  let query = db
    .selectFrom("models")
    .select(["name as model", "cached_cost_per_million as cached"])
    .select([
      (eb) => eb.ref("input_cost_per_million").$notNull().as("input"),
      (eb) => eb.ref("output_cost_per_million").$notNull().as("output"),
    ])
    .where("input_cost_per_million", "is not", null)
    .where("output_cost_per_million", "is not", null)
    .orderBy("name")
    .limit(limit + 1);
  if (after !== undefined) query = query.where("name", ">", after);
  const rows = await query.execute();
  return { prices: rows.slice(0, limit), more: rows.length > limit };
}

/** Calls opened from now on cost this. `cached` must not be above `input`. */
export async function setPrice(db: Db, { model, input, cached, output }: OwnPrice): Promise<void> {
  const columns = {
    input_cost_per_million: input,
    cached_cost_per_million: cached,
    output_cost_per_million: output,
  };
  await db
    .insertInto("models")
    .values({ name: model, ...columns })
    .onConflict((conflict) => conflict.column("name").doUpdateSet(columns))
    .execute();
}

/** Back to the server's price. The row stays: it may say more of the model. @returns whether it had one. */
export async function clearPrice(db: Db, model: string): Promise<boolean> {
  const { numUpdatedRows } = await db
    .updateTable("models")
    .set({ input_cost_per_million: null, cached_cost_per_million: null, output_cost_per_million: null })
    .where("name", "=", model)
    .where("input_cost_per_million", "is not", null)
    .executeTakeFirst();
  return numUpdatedRows > 0n;
}
