import { TokenBuckets } from "#platform/token-bucket.ts";

/** What one run may use of the network. */
export interface NetworkLimits {
  /** Connections at once; more are closed at once. */
  connections: number;
  /** Requests per minute, as many at once; refused ones count. */
  requestsPerMinute: number;
  /** ms from a request to a connection: name and all addresses. */
  connectMs: number;
  /** ms without a byte in either direction. */
  idleMs: number;
  /** Of a request's or an answer's head. */
  headerBytes: number;
  /** In total, from hosts into the sandbox. */
  bytesIn: number;
  /** In total, from the sandbox to hosts. */
  bytesOut: number;
}

const GIB = 1024 ** 3;

export const NETWORK_LIMITS: NetworkLimits = {
  connections: 64,
  requestsPerMinute: 600,
  connectMs: 10_000,
  idleMs: 120_000,
  headerBytes: 16 * 1024,
  bytesIn: 2 * GIB,
  bytesOut: GIB / 4,
};

export type Direction = "in" | "out";

/** Why a run did not get what it asked for. */
export type RefusalReason =
  | "malformed"
  | "host"
  | "address"
  | "requests"
  | "connections"
  | "bytes"
  | "unresolved"
  | "unreachable"
  | "timeout";

/** What a run has used so far. */
export class Meter {
  in = 0;
  out = 0;
  readonly #limits: NetworkLimits;
  readonly #requests: TokenBuckets;

  constructor(limits: NetworkLimits) {
    this.#limits = limits;
    const { requestsPerMinute } = limits;
    this.#requests = new TokenBuckets({
      perSecond: requestsPerMinute / 60,
      burst: requestsPerMinute,
      maxKeys: 1,
    });
  }

  /** Take so many bytes; false, and nothing taken, when that is more than is left. */
  take(direction: Direction, bytes: number): boolean {
    if (this[direction] + bytes > (direction === "in" ? this.#limits.bytesIn : this.#limits.bytesOut))
      return false;
    this[direction] += bytes;
    return true;
  }

  get exhausted(): boolean {
    return this.in >= this.#limits.bytesIn || this.out >= this.#limits.bytesOut;
  }

  takeRequest(): boolean {
    return this.#requests.take("run").ok;
  }
}
