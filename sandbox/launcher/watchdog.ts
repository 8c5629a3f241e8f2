import { readFileSync } from "node:fs";
import { OWN_PROCESSES } from "../limits/limits.ts";
import { allProcesses, type ProcessInfo, residentBytes, treeOf } from "../process-tree.ts";
import type { LimitName } from "../types.ts";

const INTERVAL_MS = 250;

interface Watched {
  memoryBytes: number;
  processes: number;
  onOver: (limit: LimitName) => void;
}

/** Memory a process has for itself plus its share of what it shares; resident size where that is unknown. */
function proportionalBytes(info: ProcessInfo): number {
  try {
    const kib = /^Pss:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${info.pid}/smaps_rollup`, "latin1"))?.[1];
    return kib === undefined ? residentBytes(info) : Number(kib) * 1024;
  } catch {
    return residentBytes(info);
  }
}

const sum = (tree: readonly ProcessInfo[], of: (info: ProcessInfo) => number) =>
  tree.reduce((total, info) => total + of(info), 0);

/** The limits of last resort, where the machine gives us no control group: four looks a second. */
export class Watchdog {
  readonly #watched = new Map<number, Watched>();
  #timer: NodeJS.Timeout | undefined;

  /** Watch `pid` and all below it until `forget`. */
  watch(pid: number, watched: Watched): void {
    this.#watched.set(pid, watched);
    this.#timer ??= setInterval(() => this.#look(), INTERVAL_MS);
  }

  forget(pid: number): void {
    this.#watched.delete(pid);
    if (this.#watched.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #look(): void {
    const all = allProcesses();
    for (const [pid, { memoryBytes, processes, onOver }] of this.#watched) {
      const tree = treeOf(pid, all);
      if (sum(tree, ({ threads }) => threads) > processes + OWN_PROCESSES) onOver("processes");
      // The proportional size takes the kernel a while, so first the cheap one, which is never smaller.
      else if (sum(tree, residentBytes) > memoryBytes && sum(tree, proportionalBytes) > memoryBytes) {
        onOver("memory");
      }
    }
  }
}
