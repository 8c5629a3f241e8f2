import { setTimeout as sleep } from "node:timers/promises";

/** Groups made in advance: as many starts in a row find one. */
const READY = 4;
/** Work beside a start takes the kernel's locks from it, so it waits, but no longer than this. */
const LONGEST_PAUSE_MS = 250;
const LOOK_MS = 5;
/** As many removed ones may lie about before one is removed beside a start. */
const MOST_LEFT = 32;

export interface StockWork {
  /** Make an empty group of that name; nothing is left of one that fails. */
  make(name: string): Promise<void>;
  /** Remove it; its processes are gone or going. */
  remove(name: string): Promise<void>;
}

/**
 * Control groups made before anybody asks for them, and removed after all have ceased to wait: both take locks that
 * others' programs hold for long. A group serves once only, so nothing of a sandbox is ever found by another.
 */
export class GroupStock {
  readonly #work: StockWork;
  readonly #ready: string[] = [];
  readonly #left: string[] = [];
  readonly #starting = new Set<string>();
  readonly #failed = new Set<string>();
  #count = 0;
  #working: Promise<void> | undefined;
  #closed = false;

  constructor(work: StockWork) {
    this.#work = work;
  }

  /** The name of a group nobody has used. Throws what making one throws, when none is ready. */
  async take(): Promise<string> {
    const name = this.#ready.shift() ?? (await this.#make());
    this.#starting.add(name);
    this.#go();
    return name;
  }

  /** Its first process runs: the start is over. */
  begun(name: string): void {
    this.#starting.delete(name);
  }

  /** Its processes are gone, and nobody needs it any more. */
  giveBack(name: string): void {
    this.#starting.delete(name);
    this.#left.push(name, ...this.#failed);
    this.#failed.clear();
    this.#go();
  }

  /** Resolves when all have been removed that can be. Throws what kept any from it. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#working;
    const all = new Set([...this.#left.splice(0), ...this.#ready.splice(0), ...this.#failed]);
    const results = await Promise.allSettled([...all].map((name) => this.#work.remove(name)));
    const errors = results.flatMap((result) => (result.status === "rejected" ? [result.reason] : []));
    if (errors.length > 0) throw new AggregateError(errors, "control groups could not be removed");
  }

  async #make(): Promise<string> {
    const name = String(this.#count++);
    await this.#work.make(name);
    return name;
  }

  #go(): void {
    if (this.#closed || this.#working !== undefined) return;
    this.#working = this.#run().finally(() => {
      this.#working = undefined;
    });
  }

  /** One thing at a time, while nothing is being started. */
  async #run(): Promise<void> {
    while (!this.#closed && (this.#ready.length < READY || this.#left.length > 0)) {
      await this.#pause();
      if (this.#closed) return;
      if (this.#ready.length < READY) {
        try {
          this.#ready.push(await this.#make());
          continue;
        } catch {
          // Whoever needs one makes it, and is told why not.
          if (this.#left.length === 0) return;
        }
      }
      const name = this.#left.shift();
      if (name === undefined) continue;
      // Tried again with the next one, and at the end.
      await this.#work.remove(name).catch(() => this.#failed.add(name));
    }
  }

  async #pause(): Promise<void> {
    const until = performance.now() + LONGEST_PAUSE_MS;
    const isUrgent = () => this.#left.length > MOST_LEFT;
    while (this.#starting.size > 0 && !this.#closed && !isUrgent() && performance.now() < until)
      await sleep(LOOK_MS);
  }
}
