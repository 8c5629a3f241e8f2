/** One time-out after another of the same call, on one timer: arming it per network chunk must cost nothing. */
export class Deadline implements Disposable {
  readonly #expire: () => void;
  #timer: NodeJS.Timeout | undefined;
  #ms = 0;
  #armed = false;

  constructor(expire: () => void) {
    this.#expire = expire;
  }

  /** Expire in `ms` unless disarmed or armed anew before. */
  arm(ms: number): void {
    this.#armed = true;
    if (this.#timer !== undefined && this.#ms === ms) {
      this.#timer.refresh();
      return;
    }
    clearTimeout(this.#timer);
    this.#ms = ms;
    this.#timer = setTimeout(() => {
      if (this.#armed) this.#expire();
    }, ms);
    this.#timer.unref();
  }

  disarm(): void {
    this.#armed = false;
  }

  [Symbol.dispose](): void {
    this.#armed = false;
    clearTimeout(this.#timer);
  }
}
