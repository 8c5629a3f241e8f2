import { AppError } from "#schemas";
import type { Measured } from "./measure.ts";

/** How long what was counted is believed: programs write to the same directory without telling us. */
const FRESH_MS = 2000;

export interface FsQuota {
  /** Of all files together, see `Measured.bytes`. */
  bytes: number;
  /** Files, directories, links and whatever else has a name. */
  files: number;
  /** Of any one file. */
  fileBytes: number;
}

export interface FsUsage {
  bytes: number;
  files: number;
  /** False when there is more than was counted: beyond the quota of files, too deep, or locked away. */
  complete: boolean;
}

/** What a directory holds against what it may: counted by walking, kept up with our own changes in between. */
export class Quota {
  readonly limits: FsQuota;
  readonly #measure: () => Promise<Measured>;
  #usage: FsUsage | undefined;
  #countedAt = 0;

  constructor(limits: FsQuota, measure: () => Promise<Measured>) {
    this.limits = limits;
    this.#measure = measure;
  }

  /** Counted anew where that was too long ago, or `anew` says so. */
  async usage(anew = false): Promise<FsUsage> {
    if (this.#usage === undefined || anew || Date.now() - this.#countedAt > FRESH_MS) {
      const { bytes, entries, complete } = await this.#measure();
      this.#usage = { bytes, files: entries, complete };
      this.#countedAt = Date.now();
    }
    return { ...this.#usage };
  }

  /** What is left. @throws AppError QuotaExceeded unless so much more has room. */
  async check(bytes: number, files: number): Promise<{ bytes: number; files: number }> {
    let left = this.#left(await this.usage());
    // Somebody may have made room since.
    if (bytes > left.bytes || files > left.files) left = this.#left(await this.usage(true));
    if (bytes > 0 && bytes > left.bytes) {
      throw new AppError("QuotaExceeded", `There is no room for ${bytes} more bytes.`, {
        hint: "Remove what is not needed any more.",
        limit: this.limits.bytes,
      });
    }
    if (files > 0 && files > left.files) {
      throw new AppError("QuotaExceeded", `There is no room for ${files} more files or directories.`, {
        hint: "Remove what is not needed any more.",
        limit: this.limits.files,
      });
    }
    return left;
  }

  /** Our own change, known to the byte. */
  changed(bytes: number, files: number): void {
    if (this.#usage === undefined) return;
    this.#usage.bytes += bytes;
    this.#usage.files += files;
  }

  /** Our own change, of unknown size. */
  forget(): void {
    this.#usage = undefined;
  }

  #left(usage: FsUsage): { bytes: number; files: number } {
    // Nobody knows how much there is besides: no room.
    if (!usage.complete) return { bytes: 0, files: 0 };
    return { bytes: this.limits.bytes - usage.bytes, files: this.limits.files - usage.files };
  }
}
