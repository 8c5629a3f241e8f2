import { type Disk, readDisk } from "#platform/host/host-load.ts";
import { Jail } from "#sandbox";

const CHECK_MS = 3000;
const MAX_ENTRIES = 500_000;
const MAX_DEPTH = 256;
const MAX_UNSEEN = 4;
/** A look at every file costs; it waits until the disk has grown by this part of what is allowed. */
const LOOK_SHARE = 1 / 8;

export interface DiskGuardOptions {
  /** What the run writes to. */
  readonly directory: string;
  /** Share of its disk, 0..1, below which nobody counts; 0 = what is allowed holds always. */
  readonly threshold: number;
  /** What one run may take of a disk that is fuller than that, bytes. */
  readonly allowedBytes: number;
  onFull(): void;
}

/** Ends the run that fills the disk, before it is full for everybody: looks closely only once that is possible. */
export class DiskGuard implements Disposable {
  readonly #options: DiskGuardOptions;
  readonly #timer: NodeJS.Timeout;
  #looking = false;
  /** Looks in a row that could not see everything. */
  #unseen = 0;
  /** What the disk held when this was last looked at, or at its least since. */
  #seen = { bytes: Number.NEGATIVE_INFINITY, files: Number.NEGATIVE_INFINITY };

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
      const disk = await readDisk(directory);
      if (disk.share <= threshold || !this.#hasGrown(disk)) return;
      await using jail = await Jail.open(directory);
      const { bytes, complete } = await jail.measure({ maxEntries: MAX_ENTRIES, maxDepth: MAX_DEPTH });
      // Once it may be a file that went while it was looked at; again and again it is something hidden.
      this.#unseen = complete ? 0 : this.#unseen + 1;
      if (this.#unseen > 0) this.#forget();
      if (bytes > allowedBytes || this.#unseen >= MAX_UNSEEN) onFull();
    } catch {
      // The directory is going away with its run; if not, the next look is a close one again.
      this.#forget();
    } finally {
      this.#looking = false;
    }
  }

  #forget(): void {
    this.#seen = { bytes: Number.NEGATIVE_INFINITY, files: Number.NEGATIVE_INFINITY };
  }

  #hasGrown({ usedBytes, usedFiles }: Disk): boolean {
    const { allowedBytes } = this.#options;
    const now = { bytes: usedBytes, files: usedFiles };
    const grown =
      now.bytes - this.#seen.bytes >= allowedBytes * LOOK_SHARE ||
      now.files - this.#seen.files >= MAX_ENTRIES * LOOK_SHARE;
    this.#seen = grown
      ? now
      : { bytes: Math.min(this.#seen.bytes, now.bytes), files: Math.min(this.#seen.files, now.files) };
    return grown;
  }
}
