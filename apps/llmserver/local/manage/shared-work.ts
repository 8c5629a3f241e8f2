/** One piece of work that several wait for. When the last of them leaves it is given up. */
export class SharedWork<T> {
  readonly #abort = new AbortController();
  readonly #result: Promise<T>;
  #waiting = 0;

  constructor(work: (signal: AbortSignal) => Promise<T>) {
    this.#result = work(this.#abort.signal);
    this.#result.catch(() => undefined);
  }

  /** @throws what the work fails with; the signal's reason. */
  async wait(signal?: AbortSignal): Promise<T> {
    this.#waiting += 1;
    try {
      return await (signal === undefined ? this.#result : unlessAborted(this.#result, signal));
    } finally {
      this.#waiting -= 1;
      if (this.#waiting === 0) this.end(new GivenUp());
    }
  }

  /** Give it up for everybody; of no effect once it is done. Whoever waits gets `reason`, as the work passes it on. */
  end(reason: Error): void {
    this.#abort.abort(reason);
  }

  /** Resolves when it is over, however. */
  async settled(): Promise<void> {
    await this.#result.catch(() => undefined);
  }
}

/** Work ended because nobody wanted it, or because other work takes its place: whoever still wants it begins anew. */
export class GivenUp extends Error {
  constructor() {
    super("Given up.");
    this.name = "GivenUp";
  }
}

/** What `promise` gives, or the signal's reason as soon as it is aborted. */
export function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const aborted = () => reject(signal.reason);
    if (signal.aborted) return aborted();
    signal.addEventListener("abort", aborted, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", aborted));
  });
}
