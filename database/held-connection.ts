import type { Db } from "./schema.ts";

interface Held {
  readonly db: Db;
  release(): void;
}

/**
 * One connection kept for what must not wait behind everything else, as the renewal of leases. Taken from the pool when
 * it is first used, and again after a failure.
 */
export class HeldConnection implements Disposable {
  readonly #db: Db;
  #held: Promise<Held> | undefined;

  constructor(db: Db) {
    this.#db = db;
  }

  /** Throws what `act` does, and Unavailable when no connection can be had. */
  async use<T>(act: (db: Db) => Promise<T>): Promise<T> {
    const held = this.#held ?? this.#take();
    this.#held = held;
    try {
      return await act((await held).db);
    } catch (error) {
      if (this.#held === held) this[Symbol.dispose]();
      throw error;
    }
  }

  /** Give it back. */
  [Symbol.dispose](): void {
    this.#held?.then(({ release }) => release()).catch(() => undefined);
    this.#held = undefined;
  }

  #take(): Promise<Held> {
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    return new Promise((resolve, reject) => {
      this.#db
        .connection()
        .execute(async (db) => {
          resolve({ db, release });
          await released;
        })
        .catch(reject);
    });
  }
}
