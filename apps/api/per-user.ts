/** How many of something each user has at once. */
export class PerUser {
  readonly #counts = new Map<string, number>();

  of(userId: string): number {
    return this.#counts.get(userId) ?? 0;
  }

  /** One more. @returns gives it back, once. */
  take(userId: string): () => void {
    this.#counts.set(userId, this.of(userId) + 1);
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      const left = this.of(userId) - 1;
      if (left === 0) this.#counts.delete(userId);
      else this.#counts.set(userId, left);
    };
  }
}
