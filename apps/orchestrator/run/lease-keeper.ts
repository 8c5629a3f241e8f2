export interface LeaseKeeperOptions {
  readonly leaseMs: number;
  /** Renew it; may fail while the database is away. */
  renew(): Promise<{ alive: boolean; cancel: boolean }>;
  /** The task is somebody else's by now, or may be: write nothing any more. */
  onLost(): void;
  onCancel(): void;
}

/** Keeps a claimed task ours: renews at a third of the lease, gives up when none has come through for its length. */
export class LeaseKeeper implements Disposable {
  readonly #options: LeaseKeeperOptions;
  readonly #timer: NodeJS.Timeout;
  #renewedAt = performance.now();
  #renewing = false;

  constructor(options: LeaseKeeperOptions) {
    this.#options = options;
    this.#timer = setInterval(() => this.#tick(), options.leaseMs / 3);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  #tick(): void {
    if (performance.now() - this.#renewedAt >= this.#options.leaseMs) this.#lose();
    else if (!this.#renewing) void this.#renew();
  }

  async #renew(): Promise<void> {
    // The lease counts from before the question: the answer may have taken long.
    const asked = performance.now();
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
    clearInterval(this.#timer);
    this.#options.onLost();
  }
}
