import { setTimeout as sleep } from "node:timers/promises";
import { costOf, type Price, type Tokens } from "#database/accounts/prices.ts";
import { openCall, releaseCall, settleCall } from "#database/ledger/index.ts";
import type { Db } from "#database/schema.ts";
import { newId } from "#platform/ids.ts";
import type { Log } from "#platform/log.ts";
import { AppError } from "#schemas";
import type { Usage } from "./tally.ts";
import type { UnclosedCalls } from "./unclosed.ts";

/** Fewer output tokens than this are not worth a call. */
const FEWEST_OUTPUT_TOKENS = 64;
const HOLD_ATTEMPTS = 3;
/** What there is says `available_microcredits`: a smaller call may still fit. */
const TOO_LITTLE: ReadonlySet<string> = new Set(["InsufficientBalance", "BudgetExceeded"]);
const WRITE_ATTEMPTS = 4;

export interface ChargeOptions {
  db: Db;
  log: Log;
  /** Closes what could not be closed here. */
  unclosed: UnclosedCalls;
  user_id: string;
  task?: { task_id: string; attempt: number } | undefined;
  instance_id: string;
  price: Price;
  model: string;
  /** Input tokens it can cost at the most. */
  inputTokens: number;
  /** Output tokens per choice that were asked for. */
  maxTokens: number;
  choices: number;
}

/** The money of one call: held when opened, then settled or released exactly once. */
export class Charge implements AsyncDisposable {
  readonly call_id: string;
  /** Output tokens per choice the hold covers: the request's, or fewer. */
  readonly maxTokens: number;
  readonly #options: ChargeOptions;
  #ended = false;

  private constructor(call_id: string, maxTokens: number, options: ChargeOptions) {
    this.call_id = call_id;
    this.maxTokens = maxTokens;
    this.#options = options;
  }

  /**
   * Hold what the call can cost at most. When that is more than there is, fewer output tokens are allowed
   * for; the caller reads them from `maxTokens`.
   * @throws AppError InsufficientBalance, BudgetExceeded when what is left does not carry a useful answer.
   */
  static async open(options: ChargeOptions): Promise<Charge> {
    const { inputTokens, choices } = options;
    let { maxTokens } = options;
    for (let attempt = 1; ; attempt += 1) {
      const call_id = newId("call");
      const hold = costOf(options.price, atMost(inputTokens, maxTokens * choices));
      try {
        await openCall(options.db, { ...callFields(options), call_id, hold });
        return new Charge(call_id, maxTokens, options);
      } catch (error) {
        if (!(error instanceof AppError) || !TOO_LITTLE.has(error.code) || attempt >= HOLD_ATTEMPTS) {
          // The answer may be what was lost, not the hold.
          if (isUnsure(error)) options.unclosed.add(call_id, () => releaseCall(options.db, call_id));
          throw error;
        }
        const available = Number(error.details.available_microcredits ?? 0);
        maxTokens = Math.min(maxTokens, affordable(options, available));
        if (maxTokens < fewest(options)) throw error;
      }
    }
  }

  /** Charge for what was used. Does nothing the second time. */
  async settle(usage: Usage, endpoint: string): Promise<void> {
    const { db, price } = this.#options;
    const cost = costOf(price, usage);
    await this.#end("settle", () => settleCall(db, { call_id: this.call_id, ...usage, cost, endpoint }));
  }

  /** Give everything back. Does nothing the second time. */
  async release(): Promise<void> {
    await this.#end("release", () => releaseCall(this.#options.db, this.call_id));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release();
  }

  /** Both are idempotent in the database, so that a lost answer is no reason not to ask again. */
  async #end(what: "settle" | "release", write: () => Promise<unknown>): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    for (let attempt = 1; ; attempt += 1) {
      try {
        await write();
        return;
      } catch (error) {
        const last = attempt >= WRITE_ATTEMPTS;
        this.#options.log.error(
          { err: error, call_id: this.call_id, what, attempt, last },
          "a call could not be closed in the ledger",
        );
        if (last) return this.#options.unclosed.add(this.call_id, write);
        await sleep(100 * 3 ** attempt);
      }
    }
  }
}

/** Whether a write may have been done all the same. */
function isUnsure(error: unknown): boolean {
  return !(error instanceof AppError) || error.code === "Unavailable" || error.code === "Timeout";
}

function callFields({ user_id, model, instance_id, task }: ChargeOptions) {
  return { user_id, model, instance_id, ...(task === undefined ? {} : { task }) };
}

/** What is held for reckons with no cache: whether the provider has one is known at the end only. */
function atMost(input_tokens: number, output_tokens: number): Tokens {
  return { input_tokens, cached_tokens: 0, output_tokens };
}

function fewest({ maxTokens }: ChargeOptions): number {
  return Math.min(FEWEST_OUTPUT_TOKENS, maxTokens);
}

/** Output tokens per choice that `available` micro-credits leave room for. */
function affordable({ price, inputTokens, maxTokens, choices }: ChargeOptions, available: number): number {
  const left = available - costOf(price, atMost(inputTokens, 0));
  if (left < 0) return 0;
  if (price.outputPerMillion === 0) return maxTokens;
  // One less for the rounding up of the whole.
  return Math.floor((Math.max(0, left - 1) * 1_000_000) / price.outputPerMillion / choices);
}
