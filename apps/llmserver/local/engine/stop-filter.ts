/** What may be shown, and whether a stop string was met. */
export interface Filtered {
  text: string;
  stopped: boolean;
}

/**
 * Keeps stop strings out of a text that comes in pieces, wherever their ends fall: what could be the beginning of one is
 * held back until it is known not to be.
 */
export class StopFilter {
  readonly #stops: readonly string[];
  #held = "";
  #stopped = false;

  constructor(stops: readonly string[]) {
    this.#stops = stops.filter((stop) => stop !== "");
  }

  push(piece: string): Filtered {
    if (this.#stopped) return { text: "", stopped: true };
    const text = this.#held + piece;
    const end = firstOf(text, this.#stops);
    if (end !== undefined) {
      this.#held = "";
      this.#stopped = true;
      return { text: text.slice(0, end), stopped: true };
    }
    const keep = this.#possibleBeginning(text);
    this.#held = text.slice(text.length - keep);
    return { text: text.slice(0, text.length - keep), stopped: false };
  }

  /** The text has ended: what was held back was no stop string. */
  rest(): string {
    const rest = this.#held;
    this.#held = "";
    return rest;
  }

  /** Length of the longest end of `text` that one of the stops begins with. */
  #possibleBeginning(text: string): number {
    const longest = Math.max(0, ...this.#stops.map((stop) => stop.length - 1));
    for (let length = Math.min(longest, text.length); length > 0; length--) {
      const end = text.slice(text.length - length);
      if (this.#stops.some((stop) => stop.startsWith(end))) return length;
    }
    return 0;
  }
}

/** Where the one begins that is complete first: what more text would bring does not change it. */
function firstOf(text: string, stops: readonly string[]): number | undefined {
  const found = stops
    .map((stop) => ({ at: text.indexOf(stop), length: stop.length }))
    .filter(({ at }) => at >= 0)
    .sort((a, b) => a.at + a.length - (b.at + b.length) || a.at - b.at);
  return found[0]?.at;
}
