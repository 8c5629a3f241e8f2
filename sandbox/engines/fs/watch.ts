import { type Dirent, type FSWatcher, fstatSync, watch } from "node:fs";
import { lstat, opendir } from "node:fs/promises";
import { AppError, toAppError } from "#schemas";
import {
  close,
  closeNow,
  errorCode,
  ignoring,
  type Name,
  openDirectory,
  openRoot,
  self,
  toJailError,
} from "./descriptors.ts";

const DEBOUNCE_MS = 100;
const MAX_WAIT_MS = 2000;
const POLL_MS = 5000;
/** The kernel has a bounded number of watches for all directories of all tenants together. */
const MAX_DIRECTORIES = 4096;
const MAX_ENTRIES = 200_000;
const MAX_DEPTH = 64;

export interface WatchOptions {
  /** Directories (by path from the root) in which nothing is of interest. */
  ignore?: (path: string) => boolean;
  /** ms from a first change to `onChange`. */
  debounceMs?: number;
  /** While changes go on `onChange` comes ever more rarely, down to once in so many ms. */
  maxWaitMs?: number;
  /** ms between two looks where the kernel cannot tell us. */
  pollMs?: number;
  /** Directories watched at most; what has more is polled. */
  maxDirectories?: number;
  /** Entries looked at in one round at most; what has more is polled. */
  maxEntries?: number;
  /**
   * Something changed since the last call, or (`overflow`) something may have: the tree is too large to be watched,
   * or the kernel has no watches left. What changed is found out by comparing.
   */
  onChange(kind: "changed" | "overflow"): void;
  /** The watch has ended: the directory was removed, replaced or moved away. */
  onError(error: AppError): void;
}

export interface DirectoryWatch {
  /** `polling`: too large, or no watches left; tried anew at every look. */
  readonly mode: "events" | "polling";
  /** Directories that are watched. */
  readonly directories: number;
  /** Settles when the watch has ended and everything of it is given back. */
  readonly closed: Promise<void>;
  close(): Promise<void>;
}

/** The tree cannot be watched by events. */
class TooMuch extends Error {}

/**
 * A tree watched by the kernel's events, one watch a directory. Each directory is entered from the one above by
 * descriptor, so that no link leads out. A watch is given up at its first event and set again before the next
 * `onChange`: a program that writes without pause costs us one event a directory and round, not one a write.
 */
class TreeWatch implements DirectoryWatch {
  readonly closed: Promise<void>;
  readonly #path: string;
  readonly #root: number;
  readonly #options: WatchOptions;
  readonly #debounceMs: number;
  readonly #maxWaitMs: number;
  readonly #pollMs: number;
  /** By device and inode. */
  #watchers = new Map<string, FSWatcher>();
  /** Those that the round under way has not come to yet. */
  #before = new Map<string, FSWatcher>();
  #mode: DirectoryWatch["mode"] = "events";
  #timer: NodeJS.Timeout | undefined;
  #delayMs: number;
  #roundEnded = 0;
  #round: Promise<void> | undefined;
  /** The kernel says nothing when the root goes while we hold it: looked after every `pollMs`. */
  #lookout: NodeJS.Timeout | undefined;
  #pending = false;
  #closing: Promise<void> | undefined;
  #onClosed: () => void = () => undefined;

  constructor(path: string, root: number, options: WatchOptions) {
    this.#path = path;
    this.#root = root;
    this.#options = options;
    this.#debounceMs = options.debounceMs ?? DEBOUNCE_MS;
    this.#maxWaitMs = options.maxWaitMs ?? MAX_WAIT_MS;
    this.#pollMs = options.pollMs ?? POLL_MS;
    this.#delayMs = this.#debounceMs;
    this.closed = new Promise((resolve) => {
      this.#onClosed = resolve;
    });
  }

  get mode(): DirectoryWatch["mode"] {
    return this.#mode;
  }

  get directories(): number {
    return this.#watchers.size;
  }

  /** Watch what is there now; what changes from here on is told. */
  async begin(): Promise<void> {
    await this.#arm();
    if (this.#mode === "polling") this.#schedule(this.#pollMs);
    this.#lookout = setInterval(() => {
      void this.#checkRoot().catch((error: unknown) => this.#fail(error));
    }, this.#pollMs).unref();
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    clearTimeout(this.#timer);
    clearInterval(this.#lookout);
    await this.#round;
    this.#disarm();
    await close(this.#root);
    this.#onClosed();
  }

  #disarm(): void {
    for (const watcher of this.#watchers.values()) watcher.close();
    this.#watchers.clear();
  }

  #schedule(delayMs: number): void {
    if (this.#closing !== undefined) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#round = this.#tell().catch((error: unknown) => this.#fail(error));
    }, delayMs).unref();
  }

  /** A directory has something to tell. */
  #heard(key: string): void {
    for (const watchers of [this.#watchers, this.#before]) {
      watchers.get(key)?.close();
      watchers.delete(key);
    }
    if (this.#pending || this.#mode === "polling") return;
    this.#pending = true;
    const calm = performance.now() - this.#roundEnded > 2 * this.#delayMs;
    this.#delayMs = calm ? this.#debounceMs : Math.min(this.#maxWaitMs, this.#delayMs * 2);
    this.#schedule(this.#delayMs);
  }

  async #tell(): Promise<void> {
    this.#pending = false;
    const polling = this.#mode === "polling";
    // Before anybody compares: what happens from here on is the next round's.
    await this.#arm();
    if (this.#closing !== undefined) return;
    this.#roundEnded = performance.now();
    if (this.#mode === "polling") this.#schedule(this.#pollMs);
    this.#options.onChange(polling || this.#mode === "polling" ? "overflow" : "changed");
  }

  #fail(error: unknown): void {
    if (this.#closing !== undefined) return;
    void this.close();
    this.#options.onError(toAppError(error));
  }

  /** Set a watch on every directory that has none. */
  async #arm(): Promise<void> {
    await this.#checkRoot();
    this.#before = this.#watchers;
    const round = new Round(this.#options, this.#before, (key) => this.#heard(key));
    this.#watchers = round.watchers;
    // What is heard during the round counts already.
    this.#mode = "events";
    try {
      await round.enter(this.#root, "", 0);
    } catch (error) {
      if (!(error instanceof TooMuch)) throw error;
      this.#disarm();
      this.#mode = "polling";
    } finally {
      for (const watcher of this.#before.values()) watcher.close();
      this.#before.clear();
    }
  }

  async #checkRoot(): Promise<void> {
    const there = await lstat(this.#path).catch(ignoring("ENOENT", "ENOTDIR"));
    if (this.#closing !== undefined) return;
    const ours = fstatSync(this.#root);
    if (there?.ino === ours.ino && there.dev === ours.dev && ours.nlink > 0) return;
    throw new AppError("NotFound", "The watched directory was removed, replaced or moved away.", {
      hint: "Open it anew.",
    });
  }
}

/** One walk over the directories: keeps the watches that stand, sets those that are missing. */
class Round {
  readonly watchers = new Map<string, FSWatcher>();
  readonly #before: Map<string, FSWatcher>;
  readonly #options: WatchOptions;
  readonly #heard: (key: string) => void;
  readonly #maxDirectories: number;
  readonly #maxEntries: number;
  #entries = 0;

  constructor(options: WatchOptions, before: Map<string, FSWatcher>, heard: (key: string) => void) {
    this.#options = options;
    this.#before = before;
    this.#heard = heard;
    this.#maxDirectories = options.maxDirectories ?? MAX_DIRECTORIES;
    this.#maxEntries = options.maxEntries ?? MAX_ENTRIES;
  }

  async enter(directory: number, path: string, depth: number): Promise<void> {
    if (depth > MAX_DEPTH) throw new TooMuch();
    // First watched, then listed: what is made in between is either in the list or heard of.
    this.#watch(directory);
    const listing = await opendir(self(directory), { encoding: "buffer" as BufferEncoding }).catch(
      ignoring("ENOENT", "EACCES"),
    );
    if (listing === undefined) return;
    const inside: Buffer[] = [];
    for await (const entry of listing) {
      this.#entries += 1;
      if (this.#entries > this.#maxEntries) throw new TooMuch();
      if (!entry.isDirectory()) continue;
      const { name } = entry as unknown as Dirent<Buffer>;
      if (this.#options.ignore?.(path + name.toString()) !== true) inside.push(name);
    }
    for (const name of inside) await this.#into(directory, name, `${path}${name}/`, depth + 1);
  }

  async #into(parent: number, name: Name, path: string, depth: number): Promise<void> {
    let directory: number;
    try {
      directory = openDirectory(parent, name);
    } catch (error) {
      // Gone or replaced meanwhile, of which the parent's watch tells; or locked away.
      ignoring("ENOENT", "ENOTDIR", "ELOOP", "EACCES")(error);
      return;
    }
    try {
      await this.enter(directory, path, depth);
    } finally {
      closeNow(directory);
    }
  }

  #watch(directory: number): void {
    const { dev, ino } = fstatSync(directory, { bigint: true });
    const key = `${dev}:${ino}`;
    const standing = this.#before.get(key);
    if (standing !== undefined) {
      this.#before.delete(key);
      this.watchers.set(key, standing);
      return;
    }
    // Moved during the round, and so met twice.
    if (this.watchers.has(key)) return;
    if (this.watchers.size >= this.#maxDirectories) throw new TooMuch();
    try {
      // The kernel watches the directory itself; the descriptor, and what its name may lead to, do not matter later.
      const watcher = watch(`${self(directory)}/.`, { persistent: false }, () => this.#heard(key));
      watcher.on("error", () => this.#heard(key));
      this.watchers.set(key, watcher);
    } catch (error) {
      if (errorCode(error) === "ENOSPC" || errorCode(error) === "EMFILE") throw new TooMuch();
      ignoring("ENOENT", "EACCES")(error);
    }
  }
}

/**
 * Be told of changes anywhere below `root` (a directory, no link), by whomever. Links are not followed. Resolves when
 * everything is watched; whoever asked closes the watch. @throws AppError NotFound, Forbidden, Conflict.
 */
export async function watchDirectory(root: string, options: WatchOptions): Promise<DirectoryWatch> {
  const descriptor = await openRoot(root).catch((error: unknown) => {
    throw toJailError(error, root);
  });
  const watched = new TreeWatch(root, descriptor, options);
  try {
    await watched.begin();
    return watched;
  } catch (error) {
    await watched.close();
    throw toJailError(error, root);
  }
}
