import { diskUse } from "#platform/host/host-load.ts";
import { Jail } from "#sandbox";

const CHECK_MS = 3000;
const MAX_ENTRIES = 500_000;
const MAX_DEPTH = 256;

export interface DiskGuardOptions {
  /** What the run writes to. */
  readonly directory: string;
  /** Share of its disk, 0..1, below which nobody counts. */
  readonly threshold: number;
  /** What one run may take of a disk that is fuller than that, bytes. */
  readonly allowedBytes: number;
  onFull(): void;
}

/** Ends the run that fills the disk, before it is full for everybody: looks closely only once it is nearly so. */
export class DiskGuard implements Disposable {
  readonly #options: DiskGuardOptions;
  readonly #timer: NodeJS.Timeout;
  #looking = false;

  constructor(options: DiskGuardOptions, checkMs: number = CHECK_MS) {
    this.#options = options;
    this.#timer = setInterval(() => void this.#check(), checkMs);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  async #check(): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    try {
      const { directory, threshold, allowedBytes, onFull } = this.#options;
      if ((await diskUse(directory)) <= threshold) return;
      await using jail = await Jail.open(directory);
      const { entries, truncated } = await jail.walk({ maxEntries: MAX_ENTRIES, maxDepth: MAX_DEPTH });
      const bytes = entries.reduce((sum, entry) => sum + entry.size, 0);
      if (truncated || bytes > allowedBytes) onFull();
    } catch {
      // The directory is going away with its run.
    } finally {
      this.#looking = false;
    }
  }
}
