import { setTimeout as sleep } from "node:timers/promises";
import type { LoadedModel } from "../types.ts";

/** A loaded model in somebody's hands, until it is disposed of. */
export interface ModelUse extends Disposable {
  readonly model: LoadedModel;
}

export interface InstanceOptions {
  /** Without a user for so long `onIdle` is called, ms; 0 = never. */
  idleMs: number;
  onIdle: () => void;
}

/** A loaded model that counts its users. */
export class Instance {
  readonly model: LoadedModel;
  readonly loadedAt = new Date();
  readonly #options: InstanceOptions;
  #gone = false;
  #users = 0;
  #lastUsed = performance.now();
  #idleTimer: NodeJS.Timeout | undefined;
  #whenUnused: (() => void) | undefined;

  constructor(model: LoadedModel, options: InstanceOptions) {
    this.model = model;
    this.#options = options;
    this.#watchIdleness();
    void model.closed.then(() => {
      this.#gone = true;
      clearTimeout(this.#idleTimer);
    });
  }

  /** Its process has ended. */
  get isGone(): boolean {
    return this.#gone;
  }

  get isIdle(): boolean {
    return this.#users === 0 && this.model.active === 0;
  }

  /** On the clock of `performance.now()`. */
  get lastUsed(): number {
    return this.#lastUsed;
  }

  use(): ModelUse {
    this.#users += 1;
    clearTimeout(this.#idleTimer);
    let used = true;
    return {
      model: this.model,
      [Symbol.dispose]: () => {
        if (used) this.#release();
        used = false;
      },
    };
  }

  /** Its users may finish within `graceMs`; then it ends. */
  async end(graceMs: number): Promise<void> {
    clearTimeout(this.#idleTimer);
    if (this.#users > 0) {
      const unused = new Promise<void>((resolve) => {
        this.#whenUnused = resolve;
      });
      const over = new AbortController();
      const grace = sleep(graceMs, undefined, { signal: over.signal }).catch(() => undefined);
      await Promise.race([unused, grace, this.model.closed]);
      over.abort();
    }
    await this.model.close();
    await this.model.closed;
  }

  #release(): void {
    this.#users -= 1;
    this.#lastUsed = performance.now();
    if (this.#users > 0) return;
    this.#whenUnused?.();
    this.#watchIdleness();
  }

  #watchIdleness(): void {
    const { idleMs, onIdle } = this.#options;
    if (idleMs === 0 || this.#gone) return;
    this.#idleTimer = setTimeout(() => {
      if (this.isIdle) onIdle();
      else this.#watchIdleness();
    }, idleMs);
    this.#idleTimer.unref();
  }
}
