import { setTimeout as sleep } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import type { SandboxLimits } from "../types.ts";

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
  /** Write what a sandbox may use into a group that none has used, whatever was written there before. */
  limit(name: string, limits: SandboxLimits): Promise<void>;
  /** Remove it; its processes are gone or going. */
  remove(name: string): Promise<void>;
}

interface Ready {
  readonly name: string;
  /** As they are written there. */
  readonly limits: SandboxLimits | undefined;
}

/**
 * Control groups made before anybody asks for them, and removed after all have ceased to wait: both take locks that
 * others' programs hold for long. Those that are ready have the limits of those that were taken last, so most need not be
 * written when one is. A group serves once only, so nothing of a sandbox is ever found by another.
 */
export class GroupStock {
  readonly #work: StockWork;
  readonly #ready: Ready[] = [];
  /** Limits of groups to be made, those of the latest taken. */
  readonly #next: SandboxLimits[] = [];
  readonly #left: string[] = [];
  readonly #starting = new Set<string>();
  readonly #failed = new Set<string>();
  #count = 0;
  #working: Promise<void> | undefined;
  #closed = false;

  constructor(work: StockWork) {
    this.#work = work;
  }

  /** The name of a group with these limits that nobody has used. Throws what making or limiting one throws. */
  async take(limits: SandboxLimits): Promise<string> {
    const found = this.#pick(limits);
    const name = found?.name ?? (await this.#make());
    this.#starting.add(name);
    try {
      if (!isDeepStrictEqual(found?.limits, limits)) await this.#work.limit(name, limits);
    } catch (error) {
      this.giveBack(name);
      throw error;
    }
    this.#next.push(limits);
    if (this.#next.length > READY) this.#next.shift();
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
    const ready = this.#ready.splice(0).map(({ name }) => name);
    const all = new Set([...this.#left.splice(0), ...ready, ...this.#failed]);
    const results = await Promise.allSettled([...all].map((name) => this.#work.remove(name)));
    const errors = results.flatMap((result) => (result.status === "rejected" ? [result.reason] : []));
    if (errors.length > 0) throw new AggregateError(errors, "control groups could not be removed");
  }

  /** One that is ready, best with these limits. */
  #pick(limits: SandboxLimits): Ready | undefined {
    const best = this.#ready.findIndex((ready) => isDeepStrictEqual(ready.limits, limits));
    return this.#ready.splice(Math.max(0, best), 1)[0];
  }

  async #prepare(): Promise<Ready> {
    const name = await this.#make();
    const limits = this.#next.shift();
    try {
      if (limits !== undefined) await this.#work.limit(name, limits);
    } catch (error) {
      this.#left.push(name);
      throw error;
    }
    return { name, limits };
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
          this.#ready.push(await this.#prepare());
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
