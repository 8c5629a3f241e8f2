/**
 * Who asks for little goes before who takes all: a sandbox weighs much until it has used up its credit of CPU
 * time, then little until it has been calm for a while. So a short run is quick among fifty that never end,
 * and those share what is left as before.
 */

/** CPU time a sandbox may take at once and still go first. */
const FULL_MS = 200;
/** With this much again it counts as calm. */
const CALM_MS = 100;
/** What comes back, as a share of a core: below a fiftieth for each of fifty on two. */
const REFILL = 0.02;
/** Who has used anything is looked at again soon, others ever later. */
const SOON_MS = 250;
const LATE_MS = 4000;

/** As control groups v2 count: 100 is usual, 1 to 10000 possible. */
export const FIRST_WEIGHT = 1600;
export const LAST_WEIGHT = 50;

export interface Weighed {
  cpuMs(): Promise<number>;
  setWeight(weight: number): Promise<void>;
}

/** Keeps a sandbox's weight by what it uses, until it is told to stop; failures are those of a group that is gone. */
export class Credit {
  readonly #group: Weighed;
  #credit = FULL_MS;
  #usedMs = 0;
  #at = performance.now();
  #waitMs = SOON_MS;
  #weight = FIRST_WEIGHT;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(group: Weighed) {
    this.#group = group;
    this.#arm();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  #arm(): void {
    if (this.#stopped) return;
    this.#timer = setTimeout(() => void this.#look().catch(() => this.stop()), this.#waitMs).unref();
  }

  async #look(): Promise<void> {
    const usedMs = await this.#group.cpuMs();
    const spent = usedMs - this.#usedMs;
    const now = performance.now();
    this.#credit = Math.min(FULL_MS, this.#credit + (now - this.#at) * REFILL) - spent;
    // A debt is forgiven, or who was alone on the machine for an hour would never be calm again.
    this.#credit = Math.max(0, this.#credit);
    this.#usedMs = usedMs;
    this.#at = now;
    this.#waitMs = spent > 1 ? SOON_MS : Math.min(LATE_MS, this.#waitMs * 2);
    const weight = this.#credit === 0 ? LAST_WEIGHT : this.#credit >= CALM_MS ? FIRST_WEIGHT : this.#weight;
    if (weight !== this.#weight) await this.#group.setWeight(weight);
    this.#weight = weight;
    this.#arm();
  }
}
