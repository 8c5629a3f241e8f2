import type { Log } from "#platform/log.ts";
import { AppError } from "#schemas";
import type { PoolLoad } from "../admission/admission.ts";
import type { OpencodeProcess } from "./process.ts";
import { StartGate } from "./start-gate.ts";
import type { Workplace } from "./workplace.ts";

/** A process grows by about 4 MB with every prompt (measured): after these it starts anew. */
const MAX_PROMPTS = 25;
/** One that has taken this share of its memory limit is not kept. */
const MAX_MEMORY_SHARE = 0.85;
const TICK_MS = 1000;
/** What ending an idle process frees at least; measured 290-350 MB. */
const IDLE_BYTES = 280 * 1024 * 1024;

export interface PoolOptions {
  readonly open: (key: string) => Promise<Workplace>;
  /** Simultaneous cold starts; more make each of them slower than queueing. */
  readonly coldStarts: number;
  /** Idle processes kept, and for how long, ms. */
  readonly warmProcesses: number;
  readonly warmIdleMs: number;
  readonly memoryBytes: number;
  /** Bytes over the memory threshold if one more process started while `starting` others do. */
  overBytes(starting: number): number;
  readonly log: Log;
}

/** A workplace in use; give it back with `release`. */
export interface Lease {
  readonly workplace: Workplace;
  /** True when the process had to be started. */
  readonly cold: boolean;
  /** The process; rejects when it does not start. */
  readonly ready: Promise<OpencodeProcess>;
  /** Announce that it comes back in a moment: its user's next task then waits for it. */
  leaving(): void;
  /** Give it back: kept for the next task of its user and project when it may be `reused`, else ended. */
  release(reused: boolean): Promise<void>;
}

/** Keeps opencode processes between the tasks of a user in a project, frozen, and starts new ones a few at a time. */
export class WarmPool {
  readonly #options: PoolOptions;
  readonly #gate: StartGate;
  /** Oldest use first. */
  #idle: Workplace[] = [];
  readonly #all = new Set<Workplace>();
  /** By key: what is about to become idle. */
  readonly #returning = new Map<string, PromiseWithResolvers<void>>();
  readonly #ending = new Set<Promise<void>>();
  readonly #timer: NodeJS.Timeout;
  #closed = false;

  constructor(options: PoolOptions) {
    this.#options = options;
    this.#gate = new StartGate(options.coldStarts);
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    this.#timer.unref();
  }

  get load(): PoolLoad {
    return { starting: this.#gate.busy, reclaimableBytes: this.#idle.length * IDLE_BYTES };
  }

  /** Idle and working processes, for health and tests. */
  get counts(): { idle: number; all: number } {
    return { idle: this.#idle.length, all: this.#all.size };
  }

  /**
   * A workplace for `key`: the warm one, else a cold start in its turn (`onWait` hears how many are before).
   * @throws AppError Unavailable when closing, what `signal` was aborted with, the sandbox's errors.
   */
  async acquire(key: string, signal: AbortSignal, onWait: (ahead: number) => void): Promise<Lease> {
    await this.#returning.get(key)?.promise;
    signal.throwIfAborted();
    for (let warm = this.#takeIdle(key); warm !== undefined; warm = this.#takeIdle(key)) {
      const { opencode } = warm;
      if (opencode !== undefined && !opencode.dead && (await thawed(opencode))) {
        return this.#lease(warm, Promise.resolve(opencode), false);
      }
      void this.#end(warm);
    }
    const leave = await this.#gate.enter(signal, onWait);
    try {
      await this.#makeRoom();
      const workplace = await this.#options.open(key);
      this.#all.add(workplace);
      if (this.#closed) {
        await this.#end(workplace);
        throw new AppError("Unavailable", "The server is shutting down.");
      }
      const ready = workplace.start(signal).finally(leave);
      ready.catch(() => undefined);
      return this.#lease(workplace, ready, true);
    } catch (error) {
      leave();
      throw error;
    }
  }

  /** End every process, also those at work. Resolves when nothing is left. */
  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
    this.#idle = [];
    for (const workplace of [...this.#all]) void this.#end(workplace);
    while (this.#ending.size > 0) await Promise.all([...this.#ending]);
  }

  #lease(workplace: Workplace, ready: Promise<OpencodeProcess>, cold: boolean): Lease {
    let released: Promise<void> | undefined;
    let returning: PromiseWithResolvers<void> | undefined;
    const release = async (reused: boolean) => {
      try {
        if (!reused || !(await this.#keep(workplace))) await this.#end(workplace);
      } finally {
        if (this.#returning.get(workplace.key) === returning) this.#returning.delete(workplace.key);
        returning?.resolve();
      }
    };
    return {
      workplace,
      cold,
      ready,
      leaving: () => {
        returning = Promise.withResolvers<void>();
        this.#returning.set(workplace.key, returning);
      },
      release: (reused) => {
        released ??= release(reused);
        return released;
      },
    };
  }

  /** Freeze it for the next task; false when it is not worth keeping or cannot be. */
  async #keep(workplace: Workplace): Promise<boolean> {
    const { opencode } = workplace;
    const { warmProcesses, memoryBytes, log } = this.#options;
    if (opencode === undefined || opencode.dead || opencode.prompts >= MAX_PROMPTS) return false;
    if (this.#closed || warmProcesses === 0) return false;
    try {
      await opencode.closeSession();
      if ((await opencode.memoryBytes()) > memoryBytes * MAX_MEMORY_SHARE) return false;
      await opencode.freeze();
    } catch (error) {
      log.warn({ err: error }, "a process could not be kept");
      return false;
    }
    if (this.#closed) return false;
    workplace.lastUsed = performance.now();
    this.#idle.push(workplace);
    while (this.#idle.length > warmProcesses) void this.#evictOldest();
    return true;
  }

  #takeIdle(key: string): Workplace | undefined {
    const at = this.#idle.findLastIndex((workplace) => workplace.key === key);
    return at === -1 ? undefined : this.#idle.splice(at, 1)[0];
  }

  /** End idle processes, longest unused first, until one more fits into memory. */
  async #makeRoom(): Promise<void> {
    while (this.#idle.length > 0 && this.#options.overBytes(this.#gate.busy - 1) > 0)
      await this.#evictOldest();
  }

  #tick(): void {
    const now = performance.now();
    const { warmIdleMs, overBytes } = this.#options;
    for (const workplace of [...this.#idle]) {
      if (workplace.opencode?.dead !== false || now - workplace.lastUsed > warmIdleMs)
        void this.#drop(workplace);
    }
    // One per tick: its memory shows only after it has gone.
    if (this.#idle.length > 0 && overBytes(this.#gate.busy) > 0) void this.#evictOldest();
  }

  #evictOldest(): Promise<void> | undefined {
    const oldest = this.#idle[0];
    return oldest === undefined ? undefined : this.#drop(oldest);
  }

  #drop(workplace: Workplace): Promise<void> {
    this.#idle = this.#idle.filter((other) => other !== workplace);
    return this.#end(workplace);
  }

  #end(workplace: Workplace): Promise<void> {
    const ending = workplace
      .destroy()
      .catch((error: unknown) => this.#options.log.error({ err: error }, "a workplace could not be cleared"))
      .finally(() => {
        this.#all.delete(workplace);
        this.#ending.delete(ending);
      });
    this.#ending.add(ending);
    return ending;
  }
}

async function thawed(opencode: OpencodeProcess): Promise<boolean> {
  try {
    await opencode.thaw();
    return !opencode.dead;
  } catch {
    return false;
  }
}
