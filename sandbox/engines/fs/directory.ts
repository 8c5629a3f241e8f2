import { randomBase32 } from "#platform/ids.ts";
import { AppError } from "#schemas";
import { type OperationFacts, operation } from "../../operations.ts";
import type { Instance } from "../../types.ts";
import type { CopyResult } from "./copy.ts";
import type { Jail, JailEntry, JailFile, JailStat } from "./jail.ts";
import { type FsQuota, type FsUsage, Quota } from "./quota.ts";
import { type DirectoryWatch, type WatchOptions, watchDirectory } from "./watch.ts";

/** Deeper trees are not counted, and so have no room for anything more. */
const MAX_DEPTH = 128;
const COPY_MS = 60_000;
const ID_CHARS = 26;

export interface FsDirectoryInput {
  jail: Jail;
  /** Host path of the directory. */
  root: string;
  quota: FsQuota;
  readOnly: boolean;
  onClosed: (directory: FsDirectory) => void;
}

/**
 * A directory in use, by us and by programs at the same time: never left, and within its quota as far as we write to
 * it; what programs write is counted before we add to it. Our own changes happen one after the other, reading does
 * not wait. Paths and errors as with `Jail`; besides: AppError QuotaExceeded, and Forbidden where it is read-only.
 */
export class FsDirectory implements Instance {
  readonly id = `fs_${randomBase32(ID_CHARS)}`;
  readonly startedAt = Date.now();
  readonly #jail: Jail;
  readonly #root: string;
  readonly #readOnly: boolean;
  readonly #quota: Quota;
  readonly #onClosed: (directory: FsDirectory) => void;
  readonly #watches = new Set<DirectoryWatch>();
  /** End of the last change. */
  #changes: Promise<unknown> = Promise.resolve();
  #closing: Promise<void> | undefined;

  constructor(input: FsDirectoryInput) {
    this.#jail = input.jail;
    this.#root = input.root;
    this.#readOnly = input.readOnly;
    this.#onClosed = input.onClosed;
    // One more than is allowed tells that there are too many.
    const bounds = { maxEntries: input.quota.files + 1, maxDepth: MAX_DEPTH };
    this.#quota = new Quota(input.quota, () => input.jail.measure(bounds));
  }

  /** A plain file's content. @throws AppError PayloadTooLarge beyond `maxBytes` or the quota's `fileBytes`. */
  read(path: string, maxBytes: number = this.#quota.limits.fileBytes): Promise<JailFile> {
    const most = Math.min(maxBytes, this.#quota.limits.fileBytes);
    return this.#do("read", {}, () => this.#jail.read(path, most));
  }

  /** What a directory holds, sorted by name. @throws AppError PayloadTooLarge beyond `maxEntries`. */
  list(path: string, maxEntries?: number): Promise<JailEntry[]> {
    return this.#do("list", {}, () => this.#jail.list(path, maxEntries));
  }

  stat(path: string): Promise<JailStat> {
    return this.#do("stat", {}, () => this.#jail.stat(path));
  }

  /** Put a file there, at once or not at all, whatever was there before; missing directories are made. */
  write(path: string, content: Uint8Array, options: { executable?: boolean } = {}): Promise<void> {
    return this.#change("write", { bytes: content.length }, async () => {
      const { fileBytes } = this.#quota.limits;
      if (content.length > fileBytes) {
        throw new AppError("PayloadTooLarge", `${path} would be larger than ${fileBytes} bytes.`, {
          hint: "Split it, or make it smaller.",
        });
      }
      const missing = await this.#jail.missing(path);
      const before = missing === 0 ? await this.#sizeOf(path) : 0;
      await this.#quota.check(content.length - before, missing);
      await this.#apply(() => this.#jail.write(path, content, options));
      this.#quota.changed(content.length - before, missing);
    });
  }

  /** Make a directory and those on the way; one that is there already is fine. */
  mkdir(path: string): Promise<void> {
    return this.#change("mkdir", {}, async () => {
      const missing = await this.#jail.missing(path);
      await this.#quota.check(0, missing);
      await this.#apply(() => this.#jail.mkdir(path));
      this.#quota.changed(0, missing);
    });
  }

  /** Remove a file or a whole tree; answers whether there was one. */
  remove(path: string): Promise<boolean> {
    return this.#change("remove", {}, async () => {
      const removed = await this.#apply(() => this.#jail.remove(path));
      if (removed) this.#quota.forget();
      return removed;
    });
  }

  /** Give a file or tree another name. @throws AppError Conflict when something stands there. */
  move(from: string, to: string): Promise<void> {
    return this.#change("move", {}, async () => {
      // The name itself is not new, only what leads to it.
      const missing = Math.max(0, (await this.#jail.missing(to)) - 1);
      await this.#quota.check(0, missing);
      await this.#apply(() => this.#jail.move(from, to));
      this.#quota.changed(0, missing);
    });
  }

  /**
   * Copy a file or tree; links and what is no plain file are left out and counted as `skipped`.
   * @throws AppError Conflict when something stands there, Timeout after 60 s.
   */
  copy(from: string, to: string): Promise<CopyResult> {
    return this.#change("copy", {}, async () => {
      const missing = await this.#jail.missing(to);
      const left = await this.#quota.check(0, missing);
      // The first of what is copied is among the missing.
      const onTheWay = Math.max(0, missing - 1);
      const bounds = {
        entries: left.files - onTheWay,
        bytes: left.bytes,
        fileBytes: this.#quota.limits.fileBytes,
        deadline: Date.now() + COPY_MS,
      };
      const copied = await this.#apply(() => this.#jail.copy(from, to, bounds));
      this.#quota.changed(copied.bytes, copied.entries + onTheWay);
      return copied;
    });
  }

  /** What everything in it takes, counted now. */
  usage(): Promise<FsUsage> {
    return this.#do("usage", {}, () => this.#afterChanges(() => this.#quota.usage(true)));
  }

  /** Be told when anything in it changes, by whomever, until the watch or this directory is closed. */
  watch(options: WatchOptions): Promise<DirectoryWatch> {
    return this.#do("watch", {}, async () => {
      const watch = await watchDirectory(this.#root, options);
      // Closed while the watch was being set up.
      if (this.#closing !== undefined) {
        await watch.close();
        throw closed();
      }
      this.#watches.add(watch);
      void watch.closed.then(() => this.#watches.delete(watch));
      return watch;
    });
  }

  /** Ends its watches, waits for what has been begun. What is in the directory stays. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await Promise.all([...this.#watches].map((watch) => watch.close()));
    await this.#changes;
    await this.#jail.close();
    this.#onClosed(this);
  }

  #do<T>(name: string, facts: OperationFacts, act: () => Promise<T>): Promise<T> {
    return operation("fs", name, facts, () => {
      if (this.#closing !== undefined) throw closed();
      return act();
    });
  }

  #change<T>(name: string, facts: OperationFacts, act: () => Promise<T>): Promise<T> {
    return this.#do(name, facts, () => {
      if (this.#readOnly) {
        throw new AppError("Forbidden", "This directory can only be read.", {
          hint: "Open it for writing, or copy what is to be changed.",
        });
      }
      return this.#afterChanges(act);
    });
  }

  /** The change itself, after everything that is checked before. */
  async #apply<T>(act: () => Promise<T>): Promise<T> {
    try {
      return await act();
    } catch (error) {
      // Directories on the way may have been made, half a tree may have been removed.
      this.#quota.forget();
      throw error;
    }
  }

  async #sizeOf(path: string): Promise<number> {
    // Gone meanwhile, then.
    return (await this.#jail.stat(path).catch(() => ({ size: 0 }))).size;
  }

  /** One after the other: what is counted before a change is then what there is when it happens. */
  #afterChanges<T>(act: () => Promise<T>): Promise<T> {
    const done = this.#changes.then(act);
    this.#changes = done.catch(() => undefined);
    return done;
  }
}

const closed = () => new AppError("Unavailable", "The directory has been closed.");
