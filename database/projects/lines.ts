/** Texts as numbered lines, cut where they are sure to agree: what comparing and merging them have in common. */

/** Lines with their ends; only the last may lack one. */
export function splitLines(text: string): string[] {
  const lines: string[] = [];
  let start = 0;
  for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n", start)) {
    lines.push(text.slice(start, at + 1));
    start = at + 1;
  }
  if (start < text.length) lines.push(text.slice(start));
  return lines;
}

/** Equal lines become equal numbers: comparing and hashing them costs nothing then. */
export class LineTable {
  readonly #numbers = new Map<string, number>();
  readonly #lines: string[] = [];

  intern(lines: readonly string[]): number[] {
    return lines.map((line) => {
      const known = this.#numbers.get(line);
      if (known !== undefined) return known;
      this.#numbers.set(line, this.#lines.length);
      return this.#lines.push(line) - 1;
    });
  }

  text(numbers: readonly number[]): string {
    let text = "";
    for (const number of numbers) text += this.#lines[number];
    return text;
  }
}

/** A stretch of three texts, as numbers of lines. */
export interface Piece {
  readonly o: number[];
  readonly a: number[];
  readonly b: number[];
}

export function same(left: readonly number[], right: readonly number[]): boolean {
  return left.length === right.length && left.every((value, index) => value === right[index]);
}

/**
 * Cut the texts at lines that stand exactly once in each of them, in the same order (as patience diff
 * does): such a line is unchanged, so what lies before it can be merged apart from what comes after.
 * Most pieces then differ on one side only and need no comparison at all.
 */
export function* pieces(whole: Piece): Generator<Piece> {
  const { o, a, b } = whole;
  let [fromO, fromA, fromB] = [0, 0, 0];
  for (const anchor of anchors(whole)) {
    yield { o: o.slice(fromO, anchor.o), a: a.slice(fromA, anchor.a), b: b.slice(fromB, anchor.b) };
    const line = o.slice(anchor.o, anchor.o + 1);
    yield { o: line, a: line, b: line };
    [fromO, fromA, fromB] = [anchor.o + 1, anchor.a + 1, anchor.b + 1];
  }
  yield { o: o.slice(fromO), a: a.slice(fromA), b: b.slice(fromB) };
}

interface Anchor {
  readonly o: number;
  readonly a: number;
  readonly b: number;
}

function anchors({ o, a, b }: Piece): Anchor[] {
  const [inA, inB] = [onlyPlaces(a), onlyPlaces(b)];
  const common: Anchor[] = [];
  for (const [line, at] of onlyPlaces(o)) {
    const [atA, atB] = [inA.get(line) ?? -1, inB.get(line) ?? -1];
    if (at >= 0 && atA >= 0 && atB >= 0) common.push({ o: at, a: atA, b: atB });
  }
  common.sort((left, right) => left.o - right.o);
  const inOrderOfA = longestRise(common, (anchor) => anchor.a);
  return longestRise(inOrderOfA, (anchor) => anchor.b);
}

/** Line -> its index, -1 where it stands more than once. */
function onlyPlaces(lines: readonly number[]): Map<number, number> {
  const places = new Map<number, number>();
  lines.forEach((line, index) => {
    places.set(line, places.has(line) ? -1 : index);
  });
  return places;
}

/** The longest subsequence whose key rises strictly (patience sorting, n log n). */
function longestRise(items: readonly Anchor[], key: (anchor: Anchor) => number): Anchor[] {
  interface Link {
    readonly item: Anchor;
    readonly before: Link | undefined;
  }
  const tops: Link[] = [];
  for (const item of items) {
    let [low, high] = [0, tops.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      const top = tops[middle];
      if (top !== undefined && key(top.item) < key(item)) low = middle + 1;
      else high = middle;
    }
    tops[low] = { item, before: tops[low - 1] };
  }
  const rise: Anchor[] = [];
  for (let link = tops.at(-1); link !== undefined; link = link.before) rise.push(link.item);
  return rise.reverse();
}

/** An upper bound of the steps node-diff3 takes for a pair: matches plus matched lines times their chain. */
export function cost(from: readonly number[], to: readonly number[]): number {
  const counts = new Map<number, number>();
  for (const line of to) counts.set(line, (counts.get(line) ?? 0) + 1);
  let matches = 0;
  let matched = 0;
  for (const line of from) {
    const count = counts.get(line) ?? 0;
    matches += count;
    if (count > 0) matched += 1;
  }
  return from.length + to.length + matches + matched * Math.min(matched, to.length);
}
