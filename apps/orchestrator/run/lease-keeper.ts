/** Time as a lease keeper sees it. */
export interface LeaseClock {
  /** Of a clock that never goes back, ms. */
  now(): number;
  /** Call `tick` again and again; answers what ends that. */
  every(ms: number, tick: () => void): () => void;
}

const REAL_CLOCK: LeaseClock = {
  now: () => performance.now(),
  every(ms, tick) {
    const timer = setInterval(tick, ms);
    return () => clearInterval(timer);
  },
};

export interface LeaseKeeperOptions {
  readonly leaseMs: number;
  /** Default: the process's own. */
  readonly clock?: LeaseClock;
  /** Renew it; may fail while the database is away. */
  renew(): Promise<{ alive: boolean; cancel: boolean }>;
  /** The task is somebody else's by now, or may be: write nothing any more. */
  onLost(): void;
  onCancel(): void;
}

/** Keeps a claimed task ours: renews at a third of the lease, gives up when none has come through for its length. */
export class LeaseKeeper implements Disposable {
  readonly #options: LeaseKeeperOptions;
  readonly #clock: LeaseClock;
  readonly #endTicks: () => void;
  #renewedAt: number;
  #renewing = false;

  constructor(options: LeaseKeeperOptions) {
    this.#options = options;
    this.#clock = options.clock ?? REAL_CLOCK;
    this.#renewedAt = this.#clock.now();
    this.#endTicks = this.#clock.every(options.leaseMs / 3, () => this.#tick());
  }

  [Symbol.dispose](): void {
    this.#endTicks();
  }

  #tick(): void {
    if (this.#clock.now() - this.#renewedAt >= this.#options.leaseMs) this.#lose();
    else if (!this.#renewing) void this.#renew();
  }

  async #renew(): Promise<void> {
    // The lease counts from before the question: the answer may have taken long.
    const asked = this.#clock.now();
    this.#renewing = true;
    try {
      const { alive, cancel } = await this.#options.renew();
      if (!alive) this.#lose();
      else this.#renewedAt = asked;
      if (alive && cancel) this.#options.onCancel();
    } catch {
      // The next tick tries again, until the lease is over.
    } finally {
      this.#renewing = false;
    }
  }

  #lose(): void {
    this.#endTicks();
    this.#options.onLost();
  }
}
