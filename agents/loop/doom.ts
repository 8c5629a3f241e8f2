import { createHash } from "node:crypto";

const REPEATS = 3;

/**
 * Notices a model that goes round in circles: the same call with the same outcome three times, and nothing new in
 * between. The same test failing again after an edit is no circle.
 */
export class CircleGuard {
  readonly #seen = new Set<string>();
  #counts = new Map<string, number>();

  /** @returns whether it goes round. */
  add(call: string, outcome: string): boolean {
    const step = createHash("sha1").update(`${call.length}:${call}${outcome}`).digest("base64");
    if (!this.#seen.has(step)) {
      this.#seen.add(step);
      this.#counts = new Map();
    }
    const count = (this.#counts.get(step) ?? 0) + 1;
    this.#counts.set(step, count);
    return count >= REPEATS;
  }
}
