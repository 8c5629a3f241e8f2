import type { AdmissionReason } from "#schemas";
import { diskUse, type Memory, readMemory } from "./host-load.ts";

export interface AdmissionLimits {
  /** Shares of memory and disk, 0..1, above which nothing new starts. */
  readonly memoryThreshold: number;
  readonly diskThreshold: number;
  /** What one more process is reckoned with, bytes. */
  readonly processBytes: number;
  /** Whose disk counts. */
  readonly dataDir: string;
}

/** What processes that start and end mean for memory. */
export interface PoolLoad {
  /** Starts under way that have not taken their memory yet. */
  readonly starting: number;
  /** Bytes that ending idle processes would free. */
  readonly reclaimableBytes: number;
}

const SETTLED: PoolLoad = { starting: 0, reclaimableBytes: 0 };

/** Whether the machine has room for one more run, or whatever is started by hand (MU-5). */
export class Admission {
  readonly #limits: AdmissionLimits;
  readonly #memory: () => Memory;

  constructor(limits: AdmissionLimits, memory: () => Memory = readMemory) {
    this.#limits = limits;
    this.#memory = memory;
  }

  /** Why nothing new may start at present, or null. */
  async blockedReason(pool: PoolLoad = SETTLED): Promise<AdmissionReason | null> {
    if (this.overBytes(pool.starting) > pool.reclaimableBytes) return "memory_threshold_exceeded";
    const disk = await diskUse(this.#limits.dataDir).catch(() => 0);
    return disk > this.#limits.diskThreshold ? "disk_threshold_exceeded" : null;
  }

  /** How many of `wanted` runs may start before the next look: at least one, where one may at all. */
  fitting(wanted: number, { starting, reclaimableBytes }: PoolLoad = SETTLED): number {
    let count = wanted;
    while (count > 1 && this.overBytes(starting + count - 1) > reclaimableBytes)
      count = Math.floor(count / 2);
    return count;
  }

  /** How many bytes over the threshold memory would be with `starting` processes grown and one more; else 0. */
  overBytes(starting: number): number {
    const { totalBytes, availableBytes } = this.#memory();
    const expected = totalBytes - availableBytes + (starting + 1) * this.#limits.processBytes;
    return Math.max(0, expected - totalBytes * this.#limits.memoryThreshold);
  }
}
