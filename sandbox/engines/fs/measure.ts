import { constants, type Dirent, type Stats } from "node:fs";
import { lstat, opendir } from "node:fs/promises";
import { at, close, ignoring, type Name, openAt, self } from "./descriptors.ts";

const PARALLEL = 32;
/** Allocated beyond its size, as by fallocate(2): more than any file system rounds up or allocates ahead of a write. */
const AHEAD_BYTES = 1024 * 1024;
const BLOCK_BYTES = 512;

export interface MeasureBounds {
  /** Entries of any kind. */
  maxEntries: number;
  maxDepth: number;
}

export interface Measured {
  /**
   * Of all plain files, each inode once: its size as told, so that a sparse file counts in full, or what it has
   * allocated when that is far more.
   */
  bytes: number;
  /** Entries of any kind: files, directories, links, FIFOs, whatever their names. */
  entries: number;
  /** False when there was more, deeper or unreadable, so that both figures are too small. */
  complete: boolean;
}

function bytesOf(stat: Stats): number {
  const allocated = stat.blocks * BLOCK_BYTES;
  return allocated - stat.size > AHEAD_BYTES ? allocated : stat.size;
}

class Measuring {
  readonly result: Measured = { bytes: 0, entries: 0, complete: true };
  readonly #bounds: MeasureBounds;
  /** Files with several names, by device and inode. */
  readonly #seen = new Set<string>();

  constructor(bounds: MeasureBounds) {
    this.#bounds = bounds;
  }

  get #full(): boolean {
    return this.result.entries >= this.#bounds.maxEntries;
  }

  async directory(directory: number, depth: number): Promise<void> {
    // Names are bytes here: one that is no text takes its room all the same.
    const listing = await opendir(self(directory), {
      encoding: "buffer" as BufferEncoding,
      bufferSize: PARALLEL,
    });
    let batch: Buffer[] = [];
    const inside: Buffer[] = [];
    for await (const entry of listing) {
      batch.push((entry as unknown as Dirent<Buffer>).name);
      if (batch.length < PARALLEL) continue;
      inside.push(...(await this.#count(directory, batch)));
      batch = [];
      if (this.#full) {
        this.result.complete = false;
        return;
      }
    }
    inside.push(...(await this.#count(directory, batch)));
    for (const name of inside) await this.#enter(directory, name, depth);
  }

  /** Counts these; answers the directories among them. */
  async #count(directory: number, names: readonly Buffer[]): Promise<Buffer[]> {
    const stats = await Promise.all(
      names.map((name) => lstat(at(directory, name)).catch(ignoring("ENOENT"))),
    );
    const directories: Buffer[] = [];
    for (const [index, stat] of stats.entries()) {
      const name = names[index];
      if (stat === undefined || name === undefined) continue;
      this.result.entries += 1;
      if (stat.isDirectory()) directories.push(name);
      else if (stat.isFile() && this.#isNew(stat)) this.result.bytes += bytesOf(stat);
    }
    return directories;
  }

  #isNew(stat: Stats): boolean {
    if (stat.nlink === 1) return true;
    const key = `${stat.dev}:${stat.ino}`;
    if (this.#seen.has(key)) return false;
    this.#seen.add(key);
    return true;
  }

  async #enter(parent: number, name: Name, depth: number): Promise<void> {
    if (this.#full || depth >= this.#bounds.maxDepth) {
      this.result.complete = false;
      return;
    }
    try {
      const directory = await openAt(parent, name, constants.O_RDONLY | constants.O_DIRECTORY);
      try {
        await this.directory(directory, depth + 1);
      } finally {
        await close(directory);
      }
    } catch (error) {
      // Gone, or another kind meanwhile: the next measuring counts that. Locked: nobody knows what is in there.
      ignoring("ENOENT", "ENOTDIR", "ELOOP", "EACCES")(error);
      this.result.complete = false;
    }
  }
}

/** How much stands below an open directory; whatever is of no use to anybody counts as well. */
export async function measureTree(directory: number, bounds: MeasureBounds): Promise<Measured> {
  const measuring = new Measuring(bounds);
  await measuring.directory(directory, 0);
  return measuring.result;
}
