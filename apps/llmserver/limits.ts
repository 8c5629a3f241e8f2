import type { Caller } from "#platform/authenticate.ts";
import type { Config } from "#platform/config/config.ts";
import { TokenBuckets } from "#platform/token-bucket.ts";
import { ApiError } from "./api-error.ts";

type Kind = "requests" | "tokens";

/** One limit: so many a minute for whoever the key stands for. */
interface Limit {
  kind: Kind;
  perMinute: number;
  buckets: TokenBuckets;
}

/**
 * Requests and tokens per minute, for each user and for each API key (LLM-4). Tokens are known only afterwards: a call
 * goes ahead while any are left, and what it used is made up for before the next. Tasks have ceilings of their own.
 */
export class ModelLimits {
  readonly #user: readonly Limit[];
  readonly #key: readonly Limit[];

  constructor({ user, key }: Config["llmLimits"]) {
    this.#user = limitsOf(user);
    this.#key = limitsOf(key);
  }

  /** Count one request. @throws ApiError 429 with the limit's name and when to come back. */
  admit(caller: Caller): void {
    if (caller.via === "task") return;
    const taken: [Limit, string][] = [];
    for (const [limit, id] of this.#of(caller)) {
      const take = limit.buckets.take(id, limit.kind === "requests" ? 1 : 0);
      if (!take.ok) {
        for (const [{ buckets }, other] of taken) buckets.refund(other);
        throw refusal(limit, take.retryAfterSeconds);
      }
      if (limit.kind === "requests") taken.push([limit, id]);
    }
  }

  /** Tokens a call came to. */
  used(caller: Caller, tokens: number): void {
    if (caller.via === "task") return;
    for (const [{ kind, buckets }, id] of this.#of(caller)) if (kind === "tokens") buckets.charge(id, tokens);
  }

  /** OpenAI's `x-ratelimit-*` headers: of each kind the limit that is nearest. */
  headers(caller: Caller): Record<string, string> {
    if (caller.via === "task") return {};
    const headers: Record<string, string> = {};
    const nearest = new Map<Kind, number>();
    for (const [{ kind, perMinute, buckets }, id] of this.#of(caller)) {
      const { left, fullInSeconds } = buckets.state(id);
      if (left >= (nearest.get(kind) ?? Number.POSITIVE_INFINITY)) continue;
      nearest.set(kind, left);
      headers[`x-ratelimit-limit-${kind}`] = String(perMinute);
      headers[`x-ratelimit-remaining-${kind}`] = String(left);
      headers[`x-ratelimit-reset-${kind}`] = `${Math.max(0, fullInSeconds).toFixed(3)}s`;
    }
    return headers;
  }

  *#of({ user_id, via }: Caller): Generator<[Limit, string]> {
    for (const limit of this.#user) yield [limit, user_id];
    // A user has one key at a time: its bucket goes by the user, so that a new key is no new allowance.
    if (via === "api_key") for (const limit of this.#key) yield [limit, user_id];
  }
}

function limitsOf(given: { requestsPerMinute: number; tokensPerMinute: number }): Limit[] {
  const limit = (kind: Kind, perMinute: number): Limit[] =>
    perMinute === 0
      ? []
      : [{ kind, perMinute, buckets: new TokenBuckets({ perSecond: perMinute / 60, burst: perMinute }) }];
  return [...limit("requests", given.requestsPerMinute), ...limit("tokens", given.tokensPerMinute)];
}

function refusal({ kind, perMinute }: Limit, seconds: number): ApiError {
  const wait = Math.max(1, Math.ceil(seconds));
  return new ApiError(429, `Limit of ${perMinute} ${kind} per minute reached. Try again in ${wait} s.`, {
    type: kind,
    code: "rate_limit_exceeded",
    retryAfterSeconds: wait,
  });
}
