import { Random } from "./random.ts";

interface Happening {
  readonly at: number;
  readonly nth: number;
  /** Whose it is: it falls away with the process's life, and waits while the process is paused. */
  readonly process: Process | undefined;
  readonly life: number;
  run(): void;
}

/** Virtual time: what is to happen happens in its order, with nothing in between. */
export class World {
  now = 0;
  readonly seed: number;
  /** What has gone wrong, once something has. */
  violation: string | undefined;
  /** Promises of the product's own code were settled: it has to get its turn before the next happening. */
  settling = false;
  happened = 0;
  /** What happened, one line each; only kept when somebody wants to read it. */
  readonly trace: string[] | undefined;
  readonly #heap: Happening[] = [];
  #nth = 0;

  constructor(seed: number, traced: boolean) {
    this.seed = seed;
    this.trace = traced ? [] : undefined;
  }

  fail(what: string): void {
    this.violation ??= what;
    this.note(() => `VIOLATION: ${what}`);
  }

  note(text: () => string): void {
    this.trace?.push(`${(this.now / 1000).toFixed(3).padStart(8)} ${text()}`);
  }

  /** Random numbers of one part of the world: what other parts do does not change them. */
  random(part: number): Random {
    return new Random(Math.imul(this.seed, 0x01000193) ^ Math.imul(part + 1, 0x5bd1e995));
  }

  at(when: number, run: () => void, process?: Process): void {
    const life = process?.life ?? 0;
    this.#push({ at: Math.max(when, this.now), nth: this.#nth++, process, life, run });
  }

  /** Go on until `done`, until something is wrong, or until virtual `deadline`. */
  async run(done: () => boolean, deadline: number): Promise<void> {
    while (this.violation === undefined && !done()) {
      const next = this.#pop();
      if (next === undefined || next.at > deadline) return;
      const { process } = next;
      if (process !== undefined && process.life !== next.life) continue;
      this.now = next.at;
      if (process !== undefined && process.pausedUntil > this.now) {
        this.#push({ ...next, at: process.pausedUntil, nth: this.#nth++ });
        continue;
      }
      this.happened += 1;
      next.run();
      if (this.settling) {
        this.settling = false;
        await null;
      }
    }
  }

  #push(happening: Happening): void {
    const heap = this.#heap;
    let at = heap.push(happening) - 1;
    while (at > 0) {
      const above = (at - 1) >> 1;
      const parent = heap[above];
      if (parent === undefined || before(parent, happening)) break;
      heap[at] = parent;
      at = above;
    }
    heap[at] = happening;
  }

  #pop(): Happening | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined || heap.length === 0) return first;
    let at = 0;
    for (;;) {
      const left = heap[2 * at + 1];
      if (left === undefined) break;
      const right = heap[2 * at + 2];
      const [child, where] =
        right !== undefined && before(right, left) ? [right, 2 * at + 2] : [left, 2 * at + 1];
      if (before(last, child)) break;
      heap[at] = child;
      at = where;
    }
    heap[at] = last;
    return first;
  }
}

function before(a: Happening, b: Happening): boolean {
  return a.at < b.at || (a.at === b.at && a.nth < b.nth);
}

/** How long a message travels, ms. */
const TRAVEL = [1, 15] as const;
/** Until a process learns that the database did not answer, ms. */
const DEAF = [20, 400] as const;
/** What a lost answer costs whoever waited for it: learning of it, and a pause before the next try, ms. */
const LOSS_MS = 1500;

const NONE: readonly ScheduledFault[] = [];

/** What befalls a process when it sends its message number `step`, or `after_ms` later. */
export type Fault =
  | { readonly kind: "kill"; readonly restart_ms: number; readonly same_id: boolean }
  | { readonly kind: "terminate"; readonly grace_ms: number; readonly restart_ms: number }
  /** The whole process stands still, then goes on as if nothing had happened. */
  | { readonly kind: "pause"; readonly ms: number }
  /** The database cannot be reached. */
  | { readonly kind: "cut"; readonly ms: number }
  /** This message is carried out, its answer never comes. */
  | { readonly kind: "lose" }
  /** This message, or its answer, travels this long. */
  | { readonly kind: "delay"; readonly ms: number; readonly answer: boolean };

export type ScheduledFault = Fault & {
  readonly process: number;
  readonly step: number;
  readonly after_ms: number;
};

/** A process: its clock, its connection to the database, what befalls it. */
export class Process {
  readonly index: number;
  readonly world: World;
  readonly random: Random;
  life = 1;
  pausedUntil = 0;
  /** Since when it could have done its duty without a break; never while it is dead. */
  healthySince = Number.POSITIVE_INFINITY;
  readonly #rate: number;
  readonly #faults: readonly ScheduledFault[];
  readonly #lastFault: number;
  readonly #befall: (fault: Fault) => void;
  #cutUntil = 0;
  #sent = 0;

  constructor(
    index: number,
    world: World,
    options: { rate: number; faults: readonly ScheduledFault[]; befall?: (fault: Fault) => void },
  ) {
    this.index = index;
    this.world = world;
    this.random = world.random(index);
    this.#rate = options.rate;
    this.#faults = options.faults.filter(({ process }) => process === index);
    this.#lastFault = Math.max(0, ...this.#faults.map(({ step }) => step));
    this.#befall = options.befall ?? (() => undefined);
  }

  /** A life begins, or ends. */
  begin(): void {
    this.healthySince = Math.max(this.world.now + 100, this.#cutUntil);
  }

  end(): void {
    this.life += 1;
    this.pausedUntil = 0;
    this.healthySince = Number.POSITIVE_INFINITY;
  }

  /** Its own clock, which goes a little faster or slower than the world's, ms. */
  clock(): number {
    return 1_000_000 * this.index + this.world.now * this.#rate;
  }

  /** After `ms` of its own clock. */
  after(ms: number, run: () => void): void {
    this.world.at(this.world.now + ms / this.#rate, run, this);
  }

  get reachable(): boolean {
    return this.#cutUntil <= this.world.now;
  }

  /** The connection is cut, or the process stands still, until then. */
  hinder(until: number, how: "cut" | "pause" | "delay"): void {
    if (how === "cut") this.#cutUntil = Math.max(this.#cutUntil, until);
    if (how === "pause") this.pausedUntil = Math.max(this.pausedUntil, until);
    if (this.healthySince !== Number.POSITIVE_INFINITY)
      this.healthySince = Math.max(this.healthySince, until);
  }

  /** Ask the database: `what` is done there in one piece; then one of the two is called, unless we died. */
  ask<T>(name: string, what: () => T, done: (answer: T) => void, failed: () => void): void {
    const { world, random } = this;
    this.#sent += 1;
    const faults =
      this.#sent > this.#lastFault ? NONE : this.#faults.filter(({ step }) => step === this.#sent);
    for (const fault of faults) world.at(world.now + fault.after_ms, () => this.#befall(fault));
    if (!this.reachable) {
      this.after(random.int(...DEAF), failed);
      return;
    }
    let lost = false;
    let travels = random.int(...TRAVEL);
    let returns = random.int(...TRAVEL);
    for (const fault of faults) {
      if (fault.kind === "lose") {
        lost = true;
        this.hinder(world.now + LOSS_MS, "delay");
      }
      if (fault.kind !== "delay") continue;
      if (fault.answer) returns += fault.ms;
      else travels += fault.ms;
      this.hinder(world.now + fault.ms + 100, "delay");
    }
    const { life } = this;
    world.at(world.now + travels, () => {
      const answer = what();
      world.note(() => `process ${this.index}.${life}: ${name} -> ${JSON.stringify(answer)}`);
      if (lost || !this.reachable) this.#later(life, random.int(...DEAF), failed);
      else this.#later(life, returns, () => done(answer));
    });
  }

  /** For the life that asked, not for one that began since. */
  #later(life: number, ms: number, run: () => void): void {
    if (this.life === life) this.world.at(this.world.now + ms, run, this);
  }
}
