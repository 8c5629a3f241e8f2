interface Waiter {
  enter(): void;
  /** Told how many are before it, whenever that changes. */
  onWait(ahead: number): void;
}

/** Lets so many in at a time, the rest in the order they came. */
export class StartGate {
  readonly #places: number;
  #inside = 0;
  readonly #waiting: Waiter[] = [];

  constructor(places: number) {
    this.#places = places;
  }

  /** Inside or waiting. */
  get busy(): number {
    return this.#inside + this.#waiting.length;
  }

  /**
   * Wait for a place; call the answer once to give it back. `onWait` hears how many are before the caller.
   * @throws what `signal` was aborted with.
   */
  async enter(signal: AbortSignal, onWait: (ahead: number) => void): Promise<() => void> {
    signal.throwIfAborted();
    if (this.#inside < this.#places) this.#inside += 1;
    else await this.#wait(signal, onWait);
    let left = false;
    return () => {
      if (!left) this.#leave();
      left = true;
    };
  }

  #wait(signal: AbortSignal, onWait: (ahead: number) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        const at = this.#waiting.indexOf(waiter);
        if (at !== -1) this.#waiting.splice(at, 1);
        this.#tell();
        reject(signal.reason);
      };
      const enter = () => {
        signal.removeEventListener("abort", onAbort);
        resolve();
      };
      const waiter: Waiter = { enter, onWait };
      signal.addEventListener("abort", onAbort, { once: true });
      this.#waiting.push(waiter);
      onWait(this.#waiting.length - 1);
    });
  }

  /** The place goes straight to the next one: `#inside` stays as it is. */
  #leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) {
      this.#inside -= 1;
      return;
    }
    next.enter();
    this.#tell();
  }

  #tell(): void {
    for (const [ahead, waiter] of this.#waiting.entries()) waiter.onWait(ahead);
  }
}
