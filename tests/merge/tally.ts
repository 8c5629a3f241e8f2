import type { StoreMerge } from "./store.ts";
import { shown, type Tree } from "./trees.ts";

const NAME_WIDTH = 72;

/** Counts how pairs were merged here and by git, for a table to read. */
export class Tally {
  readonly #rows: string[] = [];
  readonly #counts = new Map<string, number>();

  add(name: string, mine: StoreMerge, gits: Tree | null, differs?: string): void {
    const kinds = [...new Set(mine.conflicts.map(({ kind }) => kind))].join(", ");
    const outcome = mine.result === null ? `conflict (${kinds})` : "merged";
    const same =
      mine.result === null || gits === null
        ? ""
        : JSON.stringify(shown(mine.result)) === JSON.stringify(shown(gits))
          ? ", same bytes"
          : ", other bytes";
    const theirs = gits === null ? "conflict" : "merged";
    const note = differs === undefined ? "" : `  <- ${differs}`;
    this.#rows.push(`${name.padEnd(NAME_WIDTH)} ${outcome.padEnd(28)} ${theirs}${same}${note}`);
    const key = `${mine.result === null ? "conflict" : "merged"} here, ${theirs} by git${same}`;
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
  }

  count(key: string): number {
    return this.#counts.get(key) ?? 0;
  }

  /** The table, with every pair or with the counts alone. */
  print(title: string, withRows = true): void {
    const counts = [...this.#counts].sort().map(([key, count]) => `${String(count).padStart(5)}  ${key}`);
    console.log([`${title} (here / git)`, ...(withRows ? this.#rows : []), ...counts].join("\n"));
  }
}
