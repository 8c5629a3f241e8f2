/** In any second hogs are held for others no longer than this, so that a stream of short runs does not starve them. */
export const HUSH_SHARE = 0.9;
const SECOND_MS = 1000;

/** The moments in which no hog runs. */
export class Hush {
  /** Of the last second: [from, to], oldest first; the last one's end is open while it is on. */
  readonly #spans: { from: number; to: number }[] = [];
  on = false;

  /** Begin, go on or end as it is wished and as there is any left. */
  set(wished: boolean, now: number): void {
    const last = this.#spans.at(-1);
    if (this.on && last !== undefined) last.to = now;
    while (this.#spans[0] !== undefined && this.#spans[0].to <= now - SECOND_MS) this.#spans.shift();
    const on = wished && this.#leftMs(now) > 0;
    if (on && !this.on) this.#spans.push({ from: now, to: now });
    this.on = on;
  }

  /** After how many ms it ends if it is on. */
  nextMs(now: number): number {
    return this.on ? this.#leftMs(now) : Number.POSITIVE_INFINITY;
  }

  #leftMs(now: number): number {
    const since = now - SECOND_MS;
    const had = this.#spans.reduce((sum, { from, to }) => sum + Math.max(0, to - Math.max(from, since)), 0);
    return SECOND_MS * HUSH_SHARE - had;
  }
}
