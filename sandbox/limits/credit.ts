/**
 * Who asks for little goes before who takes all. Every owner of sandboxes has a credit of CPU time, which all of them
 * share and which outlives them: until it is used up they are light, then hogs until all of it has come back.
 */

/** CPU time an owner may take at once and still go first. */
const FULL_MS = 200;
/** What comes back while its owner is calm, as a share of a core. */
const REFILL = 0.02;
/** What the machine does for a start that no group counts. */
const START_MS = 10;
/** How long hogs may be held for one owner at once, and what of it comes back, as a share of time. */
const HUSH_MS = 1000;
const HUSH_REFILL = 0.1;
/** What must have come back once it is used up. */
const HUSH_AGAIN_MS = 200;
/**
 * Whose programs run into limits one after the other begins the next one later each time, as long as others want the machine:
 * killing one and clearing up after it is work that is counted for nobody. Twice as long for each, and forgotten after a while.
 */
const BACK_OFF_MS = 2000;
const LONGEST_BACK_OFF_MS = 30_000;
const FORGOTTEN_MS = 60_000;
/** Owners without a sandbox that are remembered, the latest ones. */
const MOST_KEPT = 4096;

/**
 * As control groups v2 count: 100 is usual, 1 to 10000 possible. Hogs do not weigh next to nothing: while one has to wait
 * for the CPU in the kernel, whoever needs what it holds there waits too.
 */
export const FIRST_WEIGHT = 1600;
export const LAST_WEIGHT = 400;

/** What one owner has left. All times are ms on one clock that only goes forward. */
export class Account {
  hog = false;
  /** It wants all it can get, or is at work: meanwhile nothing comes back, however little it gets. */
  busy = false;
  /** CPU ms had in turns, see `turns.ts`. */
  ranMs = 0;
  /** Sandboxes it has. */
  members = 0;
  #credit = FULL_MS;
  #hush = HUSH_MS;
  #mayHush = true;
  #backOffMs = 0;
  #overdrawnAt = Number.NEGATIVE_INFINITY;
  #at: number;

  constructor(now: number) {
    this.#at = now;
  }

  /** Take `ms` of CPU time from the credit. */
  spend(ms: number, now: number): void {
    this.look(now);
    // A debt is forgiven, or who was alone on the machine for an hour would never be calm again.
    this.#credit = Math.max(0, this.#credit - ms);
    if (this.#credit === 0) this.hog = true;
  }

  start(now: number): void {
    this.spend(START_MS, now);
  }

  /** It ran into a limit: whoever does so is not one of those who ask for little. */
  overdraw(now: number): void {
    this.spend(FULL_MS, now);
    const isAgain = now - this.#overdrawnAt < FORGOTTEN_MS;
    this.#backOffMs = isAgain ? Math.min(LONGEST_BACK_OFF_MS, Math.max(BACK_OFF_MS, this.#backOffMs * 2)) : 0;
    this.#overdrawnAt = now;
  }

  /** Whether its next program may take others' turn. */
  mayBegin(now: number): boolean {
    return now - this.#overdrawnAt >= this.#backOffMs;
  }

  /** Hogs have been held for it. */
  spendHush(ms: number): void {
    this.#hush -= ms;
    if (this.#hush <= 0) this.#mayHush = false;
  }

  /** CPU ms left of the credit. */
  get leftMs(): number {
    return this.#credit;
  }

  get mayHush(): boolean {
    return this.#mayHush;
  }

  /** What has come back until `now`. */
  look(now: number): void {
    const passed = Math.max(0, now - this.#at);
    this.#at = now;
    if (!this.busy) this.#credit = Math.min(FULL_MS, this.#credit + passed * REFILL);
    this.#hush = Math.min(HUSH_MS, this.#hush + passed * HUSH_REFILL);
    if (this.#hush >= HUSH_AGAIN_MS) this.#mayHush = true;
    if (this.#credit === FULL_MS) this.hog = false;
  }

  /** Whether it is as one that nobody remembers. */
  get fresh(): boolean {
    return this.members === 0 && this.#credit === FULL_MS && this.#hush === HUSH_MS;
  }
}

/** The accounts of all owners, as long as they say more than a new one would. */
export class Accounts {
  /** In the order they were last left. */
  readonly #accounts = new Map<string, Account>();

  /** The owner's account, with one sandbox more. */
  enter(owner: string, now: number): Account {
    const account = this.#accounts.get(owner) ?? new Account(now);
    this.#accounts.set(owner, account);
    account.members += 1;
    account.start(now);
    return account;
  }

  leave(owner: string, account: Account, now: number): void {
    account.members -= 1;
    if (account.members > 0) return;
    account.look(now);
    account.busy = false;
    this.#accounts.delete(owner);
    this.#accounts.set(owner, account);
    for (const [name, other] of this.#accounts) {
      other.look(now);
      const idle = other.members === 0;
      if (other.fresh || (idle && this.#accounts.size > MOST_KEPT)) this.#accounts.delete(name);
      else if (idle) break;
    }
  }

  get size(): number {
    return this.#accounts.size;
  }
}
