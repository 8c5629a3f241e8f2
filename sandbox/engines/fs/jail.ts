import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import { constants } from "node:fs";
import { lchown, lstat, mkdir, rename, rmdir, unlink } from "node:fs/promises";
import { promisify } from "node:util";
import { AppError } from "#schemas";
import { checkRegular, readUpTo, writeAll } from "./content.ts";
import { type CopyBounds, type CopyResult, copyTree } from "./copy.ts";
import {
  at,
  close,
  closeNow,
  errorCode,
  ignoring,
  openAt,
  openDirectory,
  openRoot,
  openToRead,
  self,
  toJailError,
} from "./descriptors.ts";
import { type JailEntry, type JailStat, listDirectory, toStat } from "./listing.ts";
import { type MeasureBounds, type Measured, measureTree } from "./measure.ts";
import { splitPath } from "./path.ts";
import { removeTree } from "./remove.ts";
import { type WalkOptions, type WalkResult, walkDirectory } from "./walk.ts";

export type { JailEntry, JailStat } from "./listing.ts";

const { O_WRONLY, O_CREAT, O_EXCL } = constants;
const REMOVE_MS = 60_000;
const MAX_LISTED = 100_000;

const fchmod = promisify(fs.fchmod);
const fchown = promisify(fs.fchown);

export interface JailFile {
  content: Buffer;
  executable: boolean;
  mtimeMs: number;
  ctimeMs: number;
}

export interface JailOptions {
  /** Who owns what is made; for a server running as root that works in another user's directory. */
  owner?: { uid: number; gid: number } | null;
}

/**
 * A directory somebody else may be changing at this moment, used without ever leaving it: every part of a
 * path is opened by itself, as a directory and never through a link, starting from the descriptor before.
 * Paths are relative to the root. Throws AppError InvalidParams (path), NotFound, Forbidden (links, hard
 * links, FIFOs, sockets, devices), Conflict (file against directory) and PayloadTooLarge.
 */
export class Jail implements AsyncDisposable {
  readonly #root: number;
  readonly #owner: { uid: number; gid: number } | undefined;
  /** Operations under way. */
  #busy = 0;
  #idle: (() => void) | undefined;
  #closing: Promise<void> | undefined;

  private constructor(root: number, options: JailOptions) {
    this.#root = root;
    this.#owner = options.owner ?? undefined;
  }

  /** `root` must be a directory and no link; the way to it must be the caller's own. */
  static async open(root: string, options: JailOptions = {}): Promise<Jail> {
    try {
      return new Jail(await openRoot(root), options);
    } catch (error) {
      throw toJailError(error, root);
    }
  }

  /** A regular file's content; more than `maxBytes` is PayloadTooLarge. */
  async read(path: string, maxBytes: number): Promise<JailFile> {
    return this.#inParent(path, false, async (parent, name) => {
      const file = openToRead(parent, name);
      try {
        const stat = fs.fstatSync(file);
        checkRegular(stat, path);
        const content = await readUpTo(file, stat.size, maxBytes, path);
        return {
          content,
          executable: (stat.mode & 0o100) !== 0,
          mtimeMs: stat.mtimeMs,
          ctimeMs: stat.ctimeMs,
        };
      } finally {
        closeNow(file);
      }
    });
  }

  /**
   * Put `content` there at once or not at all, missing directories included. What stood there is replaced,
   * not written through: be it a link, a hard link or a FIFO. Not synced to the disk: what has to outlive a
   * power cut belongs into the database.
   */
  async write(path: string, content: Uint8Array, options: { executable?: boolean } = {}): Promise<void> {
    await this.#inParent(path, true, async (parent, name) => {
      const draft = draftName();
      const file = await openAt(parent, draft, O_WRONLY | O_CREAT | O_EXCL, 0o600);
      try {
        try {
          await writeAll(file, content);
          await fchmod(file, options.executable === true ? 0o755 : 0o644);
          if (this.#owner !== undefined) await fchown(file, this.#owner.uid, this.#owner.gid);
        } finally {
          await close(file);
        }
        await rename(at(parent, draft), at(parent, name));
      } catch (error) {
        await unlink(at(parent, draft)).catch(ignoring("ENOENT"));
        throw error;
      }
    });
  }

  /** What a directory holds, sorted by name; names that are not Unicode are left out. */
  async list(path: string, maxEntries: number = MAX_LISTED): Promise<JailEntry[]> {
    return this.#inDirectory(path, (directory) =>
      listDirectory(directory, maxEntries, path || "The directory"),
    );
  }

  /** What stands there. */
  async stat(path: string): Promise<JailStat> {
    if (splitPath(path).length === 0) {
      return this.#run(path, async () => toStat(fs.fstatSync(this.#root)));
    }
    return this.#inParent(path, false, async (parent, name) => toStat(await lstat(at(parent, name))));
  }

  /** How many names at the end of `path` do not exist. */
  async missing(path: string): Promise<number> {
    const names = splitPath(path);
    const last = names.pop();
    if (last === undefined) return 0;
    return this.#run(path, async () => {
      const { directory, rest } = this.#descendFar(names);
      try {
        if (rest.length > 0) return rest.length + 1;
        return (await lstat(at(directory, last)).catch(ignoring("ENOENT"))) === undefined ? 1 : 0;
      } finally {
        this.#leave(directory);
      }
    });
  }

  /** Everything below `path`, within bounds. */
  async walk(options: WalkOptions, path = ""): Promise<WalkResult> {
    return this.#inDirectory(path, (directory) => walkDirectory(directory, options));
  }

  /** Make a directory and those on the way; one that is there already is fine. */
  async mkdir(path: string): Promise<void> {
    const names = splitPath(path);
    await this.#run(path, async () => {
      this.#leave(await this.#descend(names, true));
    });
  }

  /** Remove a directory if nothing is in it; answers whether it was. A program that fills it meanwhile keeps it. */
  async removeEmpty(path: string): Promise<boolean> {
    try {
      return await this.#inParent(path, false, async (parent, name) => {
        await rmdir(at(parent, name));
        return true;
      });
    } catch (error) {
      if (error instanceof AppError) return false;
      throw error;
    }
  }

  /** Remove a file or a whole tree; answers whether there was one. */
  async remove(path: string, timeoutMs: number = REMOVE_MS): Promise<boolean> {
    try {
      return await this.#inParent(path, false, (parent, name) => removeTree(parent, name, timeoutMs));
    } catch (error) {
      if (error instanceof AppError && error.code === "NotFound") return false;
      throw error;
    }
  }

  /**
   * Give a file, link or tree another name, missing directories on the way to it included. Nothing is replaced:
   * Conflict when something stands there, but for a file or empty directory made in that very moment.
   */
  async move(from: string, to: string): Promise<void> {
    this.#checkApart(from, to);
    await this.#between(from, to, async (source, name, target, newName) => {
      try {
        await rename(at(source, name), at(target, newName));
      } catch (error) {
        // Only after a directory on the way was moved meanwhile: the names themselves have been compared.
        if (errorCode(error) === "EINVAL") throw intoItself(from, to);
        throw error;
      }
    });
  }

  /**
   * Copy a file or a whole tree, at once or not at all; links, hard links and whatever else is no plain file are
   * left out and counted. Nothing is replaced, as with `move`. @throws AppError QuotaExceeded beyond `bounds`.
   */
  async copy(from: string, to: string, bounds: CopyBounds): Promise<CopyResult> {
    this.#checkApart(from, to);
    return this.#between(from, to, async (source, name, target, newName) => {
      const draft = draftName();
      try {
        const result = await copyTree({ source, name, target, newName: draft }, bounds, this.#owner);
        await rename(at(target, draft), at(target, newName));
        return result;
      } catch (error) {
        await removeTree(target, draft, REMOVE_MS);
        throw error;
      }
    });
  }

  /** How much everything below is, whatever it is. */
  measure(bounds: MeasureBounds): Promise<Measured> {
    return this.#run("", () => measureTree(this.#root, bounds));
  }

  /** Nothing more is begun; what has been begun is waited for. */
  close(): Promise<void> {
    // A descriptor closed under an operation could by then be another's directory.
    this.#closing ??= new Promise<void>((resolve) => {
      this.#idle = resolve;
      if (this.#busy === 0) resolve();
    }).then(() => close(this.#root));
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #run<T>(path: string, act: () => Promise<T>): Promise<T> {
    if (this.#closing !== undefined) throw new AppError("Unavailable", "The directory has been closed.");
    this.#busy += 1;
    try {
      return await act();
    } catch (error) {
      throw toJailError(error, path === "" ? "the directory" : path);
    } finally {
      this.#busy -= 1;
      if (this.#busy === 0) this.#idle?.();
    }
  }

  async #inDirectory<T>(path: string, act: (directory: number) => Promise<T>): Promise<T> {
    const names = splitPath(path);
    return this.#run(path, async () => {
      const directory = await this.#descend(names, false);
      try {
        return await act(directory);
      } finally {
        this.#leave(directory);
      }
    });
  }

  async #inParent<T>(
    path: string,
    make: boolean,
    act: (parent: number, name: string) => Promise<T>,
  ): Promise<T> {
    const names = splitPath(path);
    const name = names.pop();
    if (name === undefined) throw new AppError("InvalidParams", "The path names no file.");
    return this.#run(path, async () => {
      const parent = await this.#descend(names, make);
      try {
        return await act(parent, name);
      } finally {
        this.#leave(parent);
      }
    });
  }

  /** Both parents open, the source there, and nothing at the target. */
  #between<T>(
    from: string,
    to: string,
    act: (source: number, name: string, target: number, newName: string) => Promise<T>,
  ): Promise<T> {
    return this.#inParent(from, false, async (source, name) => {
      await lstat(at(source, name));
      return this.#inParent(to, true, async (target, newName) => {
        if ((await lstat(at(target, newName)).catch(ignoring("ENOENT"))) !== undefined) {
          throw new AppError("Conflict", `${to} exists already.`, {
            hint: "Remove it, or choose another name.",
          });
        }
        return act(source, name, target, newName);
      });
    });
  }

  #checkApart(from: string, to: string): void {
    const [source, target] = [splitPath(from), splitPath(to)];
    if (source.every((name, index) => target[index] === name)) throw intoItself(from, to);
  }

  /** A descriptor of the directory at the end of `names`; the caller hands it to `#leave`. */
  async #descend(names: readonly string[], make: boolean): Promise<number> {
    let { directory, rest } = this.#descendFar(names);
    if (rest.length > 0 && !make) {
      this.#leave(directory);
      throw new AppError("NotFound", `There is no ${names.join("/")}.`);
    }
    for (const name of rest) {
      try {
        const next = await this.#make(directory, name);
        this.#leave(directory);
        directory = next;
      } catch (error) {
        this.#leave(directory);
        throw error;
      }
    }
    return directory;
  }

  /** As far as there are directories, and the names of those that are missing. */
  #descendFar(names: readonly string[]): { directory: number; rest: readonly string[] } {
    let directory = this.#root;
    for (const [index, name] of names.entries()) {
      try {
        const next = openDirectory(directory, name);
        this.#leave(directory);
        directory = next;
      } catch (error) {
        if (errorCode(error) === "ENOENT") return { directory, rest: names.slice(index) };
        this.#leave(directory);
        throw error;
      }
    }
    return { directory, rest: [] };
  }

  #leave(directory: number): void {
    if (directory !== this.#root) closeNow(directory);
  }

  async #make(directory: number, name: string): Promise<number> {
    await mkdir(at(directory, name), 0o755).catch(ignoring("EEXIST"));
    const made = openDirectory(directory, name);
    // By descriptor: the name may have become a link meanwhile, and a link's target is not ours to give away.
    if (this.#owner !== undefined) await lchown(`${self(made)}/.`, this.#owner.uid, this.#owner.gid);
    return made;
  }
}

const draftName = () => `.${randomBytes(12).toString("hex")}.tmp`;

const intoItself = (from: string, to: string) =>
  new AppError("InvalidParams", `${from || "The directory"} cannot become ${to || "the directory"}.`, {
    hint: "Nothing can be moved or copied into itself.",
  });
