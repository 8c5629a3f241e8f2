/** A clock that says what time it is, and one that only ever goes forward, evenly. Both in ms. */
export interface Clocks {
  wall(): number;
  steady(): number;
}

const systemClocks: Clocks = { wall: () => Date.now(), steady: () => performance.now() };

/** Two clocks drift apart by less between two looks; more means that somebody set the one on the wall. */
const SET_BY_MS = 30_000;

/**
 * How long something has been idle, whatever happens to the clock. Times of last use are the wall's, so a clock set
 * forward would make everything old at once, and one set back would keep everything for ever: from the moment
 * that is noticed, only time that has really passed counts.
 */
export class Ages {
  readonly #clocks: Clocks;
  #seen = new Map<string, number>();
  #now: { wall: number; steady: number };
  /** By the steady clock, when the other was last set. */
  #setAt = Number.NEGATIVE_INFINITY;

  constructor(clocks: Clocks = systemClocks) {
    this.#clocks = clocks;
    this.#now = { wall: clocks.wall(), steady: clocks.steady() };
  }

  /** ms for which `key` has certainly been idle. */
  of(key: string, idleSince: number): number {
    const { wall, steady } = this.#look();
    const use = `${key}@${idleSince}`;
    const seen = this.#seen.get(use) ?? steady;
    this.#seen.set(use, seen);
    const told = Math.min(wall - idleSince, steady - this.#setAt);
    // A last use in the future tells nothing, but what we watched ourselves does.
    return Math.max(told, steady - seen);
  }

  /** Forget what is not among these any more. */
  keep(all: readonly { key: string; idleSince: number }[]): void {
    const uses = new Set(all.map(({ key, idleSince }) => `${key}@${idleSince}`));
    this.#seen = new Map([...this.#seen].filter(([use]) => uses.has(use)));
  }

  #look(): { wall: number; steady: number } {
    const now = { wall: this.#clocks.wall(), steady: this.#clocks.steady() };
    const drift = now.wall - this.#now.wall - (now.steady - this.#now.steady);
    if (Math.abs(drift) > SET_BY_MS) this.#setAt = now.steady;
    this.#now = now;
    return now;
  }
}
