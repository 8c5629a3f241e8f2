import type { PoolLoad } from "#platform/host/admission.ts";
import type { Log } from "#platform/log.ts";
import { AppError } from "#schemas";
import type { OpencodeProcess } from "./process.ts";
import { StartGate } from "./start-gate.ts";
import type { Workplace } from "./workplace.ts";

/** A process grows by 4-8 MB with every prompt (measured): after these it starts anew. */
const MAX_PROMPTS = 25;
/** One that has taken this share of its memory limit is not kept: the tools of the next run need the rest. */
const MAX_MEMORY_SHARE = 0.75;
/** Time to collect its garbage and for a quick next prompt to find it awake. */
const FREEZE_AFTER_MS = 1500;
const TICK_MS = 1000;
/** After a spare process did not start, as where no sandbox works. */
const SPARE_RETRY_MS = 60_000;
/** What ending an idle process frees at least; measured 290-350 MB. */
const IDLE_BYTES = 280 * 1024 * 1024;

export interface PoolOptions {
  /** Waits for a slot; throws AppError Cancelled when `signal` aborts meanwhile. */
  readonly open: (signal: AbortSignal) => Promise<Workplace>;
  /** Simultaneous cold starts; more make each of them slower than queueing. */
  readonly coldStarts: number;
  /** Idle processes kept, and for how long, ms. */
  readonly warmProcesses: number;
  readonly warmIdleMs: number;
  /** Processes started before anybody asks, for whoever asks first. */
  readonly spareProcesses: number;
  readonly memoryBytes: number;
  /** Bytes over the memory threshold if one more process started while `starting` others do. */
  overBytes(starting: number): number;
  readonly log: Log;
}

/** A workplace that waits for its user's next task. */
interface Resting {
  readonly workplace: Workplace;
  /** Freezes it; a spare is frozen from the start. */
  readonly timer?: NodeJS.Timeout;
  /** Set once it is being frozen. */
  frozen?: Promise<void>;
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

/**
 * Keeps opencode processes between the tasks of a user in a project, frozen, and starts new ones a few at a time.
 * A spare one is started while there is nothing better to do: it has seen nobody's data yet, and belongs to the
 * first user and project it is given to.
 */
export class WarmPool {
  readonly #options: PoolOptions;
  readonly #gate: StartGate;
  /** Oldest use first. */
  #idle: Resting[] = [];
  /** Frozen and nobody's yet. */
  #spares: Resting[] = [];
  #startingSpare = false;
  #noSpareBefore = 0;
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
    return {
      starting: this.#gate.busy,
      reclaimableBytes: (this.#idle.length + this.#spares.length) * IDLE_BYTES,
    };
  }

  /** Idle and working processes, for health and tests. */
  get counts(): { idle: number; spare: number; all: number } {
    return { idle: this.#idle.length, spare: this.#spares.length, all: this.#all.size };
  }

  /**
   * A workplace for `key`: the warm one, else a cold start in its turn (`onWait` hears how many are before). With
   * `agentConfig` always a new one, which nobody else's task gets after it.
   * @throws AppError Unavailable when closing, Cancelled while waiting for a slot, what `signal` was aborted with, the sandbox's errors.
   */
  async acquire(
    key: string,
    signal: AbortSignal,
    onWait: (ahead: number) => void,
    agentConfig = false,
  ): Promise<Lease> {
    await this.#returning.get(key)?.promise;
    signal.throwIfAborted();
    const awoken = agentConfig ? undefined : await this.#wakeFor(key);
    if (awoken !== undefined) return awoken;
    const leave = await this.#gate.enter(signal, onWait);
    try {
      await this.#makeRoom();
      const workplace = await this.#open(signal);
      workplace.assign(key);
      const ready = workplace.start(signal, agentConfig).finally(leave);
      ready.catch(() => undefined);
      return this.#lease(key, workplace, ready, true);
    } catch (error) {
      leave();
      throw error;
    }
  }

  /** End every process, also those at work. Resolves when nothing is left. */
  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
    for (const { timer } of this.#idle.splice(0)) clearTimeout(timer);
    this.#spares = [];
    for (const workplace of [...this.#all]) void this.#end(workplace);
    while (this.#ending.size > 0) await Promise.all([...this.#ending]);
  }

  async #open(signal: AbortSignal): Promise<Workplace> {
    const workplace = await this.#options.open(signal);
    this.#all.add(workplace);
    if (this.#closed) {
      await this.#end(workplace);
      throw new AppError("Unavailable", "The server is shutting down.");
    }
    return workplace;
  }

  async #wakeFor(key: string): Promise<Lease | undefined> {
    return (
      (await this.#wake(key, () => this.#takeIdle(key))) ??
      (await this.#wake(key, () => this.#spares.shift()))
    );
  }

  /** The first of those that rest which can still work; what cannot is ended. */
  async #wake(key: string, next: () => Resting | undefined): Promise<Lease | undefined> {
    for (let resting = next(); resting !== undefined; resting = next()) {
      const { workplace } = resting;
      const { opencode } = workplace;
      if (opencode !== undefined && (await awake(resting, opencode))) {
        if (workplace.key === undefined) workplace.assign(key);
        return this.#lease(key, workplace, Promise.resolve(opencode), false);
      }
      void this.#end(workplace);
    }
    return undefined;
  }

  /** One more spare when there is a core and memory for it; runs and their own cold starts go first. */
  #fillSpares(): void {
    const { spareProcesses, coldStarts, overBytes, log } = this.#options;
    const working = this.#all.size - this.#idle.length - this.#spares.length;
    const wanted = !this.#startingSpare && this.#spares.length < spareProcesses;
    if (!wanted || this.#closed || performance.now() < this.#noSpareBefore) return;
    if (this.#gate.busy > 0 || working >= coldStarts || overBytes(0) > 0) return;
    this.#startingSpare = true;
    this.#startSpare()
      .catch((error: unknown) => {
        this.#noSpareBefore = performance.now() + SPARE_RETRY_MS;
        if (!this.#closed) log.warn({ err: error }, "a spare process could not be started");
      })
      .finally(() => {
        this.#startingSpare = false;
      });
  }

  async #startSpare(): Promise<void> {
    const signal = AbortSignal.timeout(SPARE_RETRY_MS);
    const workplace = await this.#open(signal);
    try {
      const opencode = await workplace.start(signal);
      const frozen = opencode.freeze();
      await frozen;
      if (this.#closed) return;
      this.#spares.push({ workplace, frozen });
    } catch (error) {
      await this.#end(workplace);
      throw error;
    }
  }

  #lease(key: string, workplace: Workplace, ready: Promise<OpencodeProcess>, cold: boolean): Lease {
    let released: Promise<void> | undefined;
    let returning: PromiseWithResolvers<void> | undefined;
    const release = async (reused: boolean) => {
      try {
        if (!reused || !(await this.#keep(workplace))) await this.#end(workplace);
      } finally {
        if (this.#returning.get(key) === returning) this.#returning.delete(key);
        returning?.resolve();
      }
    };
    return {
      workplace,
      cold,
      ready,
      leaving: () => {
        returning = Promise.withResolvers<void>();
        this.#returning.set(key, returning);
      },
      release: (reused) => {
        released ??= release(reused);
        return released;
      },
    };
  }

  /** Keep it for the next task; false when it is not worth it or cannot be. */
  async #keep(workplace: Workplace): Promise<boolean> {
    const { opencode } = workplace;
    const { warmProcesses, memoryBytes, log } = this.#options;
    if (opencode === undefined || opencode.dead || opencode.prompts >= MAX_PROMPTS) return false;
    if (this.#closed || warmProcesses === 0) return false;
    try {
      await opencode.closeSession();
      if ((await opencode.memoryBytes()) > memoryBytes * MAX_MEMORY_SHARE) return false;
    } catch (error) {
      log.warn({ err: error }, "a process could not be kept");
      return false;
    }
    if (this.#closed || opencode.dead) return false;
    workplace.lastUsed = performance.now();
    const timer = setTimeout(() => this.#freeze(resting, opencode), FREEZE_AFTER_MS);
    const resting: Resting = { workplace, timer };
    this.#idle.push(resting);
    while (this.#idle.length > warmProcesses && this.#idle[0] !== undefined) void this.#drop(this.#idle[0]);
    return true;
  }

  #freeze(resting: Resting, opencode: OpencodeProcess): void {
    resting.frozen = opencode.freeze();
    resting.frozen.catch((error: unknown) => {
      this.#options.log.warn({ err: error }, "a process could not be frozen");
      if (this.#idle.includes(resting)) void this.#drop(resting);
    });
  }

  #takeIdle(key: string): Resting | undefined {
    const at = this.#idle.findLastIndex(({ workplace }) => workplace.key === key);
    const taken = at === -1 ? undefined : this.#idle.splice(at, 1)[0];
    clearTimeout(taken?.timer);
    return taken;
  }

  /** End idle processes, spares first, then longest unused, until one more fits into memory. */
  async #makeRoom(): Promise<void> {
    while (this.#idle.length + this.#spares.length > 0 && this.#options.overBytes(this.#gate.busy - 1) > 0)
      await this.#evictOldest();
  }

  #tick(): void {
    const now = performance.now();
    const { warmIdleMs, overBytes } = this.#options;
    for (const resting of [...this.#idle]) {
      const { opencode, lastUsed } = resting.workplace;
      if (opencode?.dead !== false || now - lastUsed > warmIdleMs) void this.#drop(resting);
    }
    // One per tick: its memory shows only after it has gone.
    if (overBytes(this.#gate.busy) > 0) void this.#evictOldest();
    else this.#fillSpares();
  }

  #evictOldest(): Promise<void> | undefined {
    const spare = this.#spares.shift();
    const oldest = spare ?? this.#idle[0];
    return oldest === undefined ? undefined : this.#drop(oldest);
  }

  #drop(resting: Resting): Promise<void> {
    clearTimeout(resting.timer);
    this.#idle = this.#idle.filter((other) => other !== resting);
    return this.#end(resting.workplace);
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

/** Whether it is ready to work again. */
async function awake({ frozen }: Resting, opencode: OpencodeProcess): Promise<boolean> {
  if (opencode.dead) return false;
  if (frozen === undefined) return true;
  try {
    await frozen;
    await opencode.thaw();
    return !opencode.dead;
  } catch {
    return false;
  }
}
