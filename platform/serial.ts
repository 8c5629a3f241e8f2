/** Runs pieces of work one after another, in the order they were given. */
export class Serial {
  #last: Promise<unknown> = Promise.resolve();

  /** What `work` gives, once everything given before has ended, however it ended. */
  run<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => undefined);
    return result;
  }
}
