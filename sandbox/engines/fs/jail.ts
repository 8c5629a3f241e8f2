import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import { constants, type Stats } from "node:fs";
import { lchown, lstat, mkdir, opendir, rename, unlink } from "node:fs/promises";
import { promisify } from "node:util";
import { AppError } from "#schemas";
import {
  at,
  close,
  errorCode,
  fstat,
  ignoring,
  openAt,
  openDirectory,
  openRoot,
  self,
  toJailError,
} from "./descriptors.ts";
import { splitPath } from "./path.ts";
import { removeTree } from "./remove.ts";
import { irregularity, type WalkOptions, type WalkResult, walkDirectory } from "./walk.ts";

const { O_RDONLY, O_WRONLY, O_CREAT, O_EXCL, O_NONBLOCK, O_NOCTTY } = constants;
const REMOVE_MS = 60_000;
const MAX_LISTED = 100_000;

const readAsync = promisify(fs.read);
const writeAsync = promisify(fs.write);
const fchmod = promisify(fs.fchmod);
const fchown = promisify(fs.fchown);

export interface JailFile {
  content: Buffer;
  executable: boolean;
  mtimeMs: number;
  ctimeMs: number;
}

export interface JailEntry {
  name: string;
  kind: "file" | "directory" | "other";
  size: number;
  executable: boolean;
}

export interface JailOptions {
  /** Who owns what is made; for a server running as root that works in another user's directory. */
  owner?: { uid: number; gid: number };
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
  #closed = false;

  private constructor(root: number, options: JailOptions) {
    this.#root = root;
    this.#owner = options.owner;
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
      // Without O_NONBLOCK opening a FIFO would wait for its other end.
      const file = await openAt(parent, name, O_RDONLY | O_NONBLOCK | O_NOCTTY);
      try {
        const stat = await fstat(file);
        checkRegular(stat, path);
        const content = await readUpTo(file, stat.size, maxBytes, path);
        return {
          content,
          executable: (stat.mode & 0o100) !== 0,
          mtimeMs: stat.mtimeMs,
          ctimeMs: stat.ctimeMs,
        };
      } finally {
        await close(file);
      }
    });
  }

  /**
   * Put `content` there at once or not at all, missing directories included. What stood there is replaced,
   * not written through: be it a link, a hard link or a FIFO.
   */
  async write(path: string, content: Uint8Array, options: { executable?: boolean } = {}): Promise<void> {
    await this.#inParent(path, true, async (parent, name) => {
      const draft = `.${randomBytes(12).toString("hex")}.tmp`;
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
    return this.#inDirectory(path, async (directory) => {
      const entries: JailEntry[] = [];
      for await (const { name } of await opendir(self(directory))) {
        if (entries.length >= maxEntries) {
          throw new AppError(
            "PayloadTooLarge",
            `${path || "The directory"} has more than ${maxEntries} entries.`,
          );
        }
        const stat = await lstat(at(directory, name)).catch(ignoring("ENOENT"));
        if (stat === undefined) continue;
        const regular = irregularity(stat) === undefined;
        const kind = !regular ? "other" : stat.isDirectory() ? "directory" : "file";
        entries.push({
          name,
          kind,
          size: kind === "file" ? stat.size : 0,
          executable: kind === "file" && (stat.mode & 0o100) !== 0,
        });
      }
      return entries.sort((one, other) => (one.name < other.name ? -1 : 1));
    });
  }

  /** Everything below `path`, within bounds. */
  async walk(options: WalkOptions, path = ""): Promise<WalkResult> {
    return this.#inDirectory(path, (directory) => walkDirectory(directory, options));
  }

  /** Make a directory and those on the way; one that is there already is fine. */
  async mkdir(path: string): Promise<void> {
    await this.#run(path, async () => {
      await close(await this.#descend(splitPath(path), true));
    });
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

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await close(this.#root);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #run<T>(path: string, act: () => Promise<T>): Promise<T> {
    if (this.#closed) throw new AppError("Unavailable", "The directory has been closed.");
    try {
      return await act();
    } catch (error) {
      throw toJailError(error, path === "" ? "the directory" : path);
    }
  }

  #inDirectory<T>(path: string, act: (directory: number) => Promise<T>): Promise<T> {
    return this.#run(path, async () => {
      const directory = await this.#descend(splitPath(path), false);
      try {
        return await act(directory);
      } finally {
        await close(directory);
      }
    });
  }

  #inParent<T>(path: string, make: boolean, act: (parent: number, name: string) => Promise<T>): Promise<T> {
    return this.#run(path, async () => {
      const names = splitPath(path);
      const name = names.pop();
      if (name === undefined) throw new AppError("InvalidParams", "The path names no file.");
      const parent = await this.#descend(names, make);
      try {
        return await act(parent, name);
      } finally {
        await close(parent);
      }
    });
  }

  /** A descriptor of the directory at the end of `names`; the caller closes it. */
  async #descend(names: readonly string[], make: boolean): Promise<number> {
    let directory = await openDirectory(this.#root, ".");
    for (const name of names) {
      try {
        const next = await this.#enter(directory, name, make);
        await close(directory);
        directory = next;
      } catch (error) {
        await close(directory);
        throw error;
      }
    }
    return directory;
  }

  async #enter(directory: number, name: string, make: boolean): Promise<number> {
    try {
      return await openDirectory(directory, name);
    } catch (error) {
      if (!make || errorCode(error) !== "ENOENT") throw error;
    }
    await mkdir(at(directory, name), 0o755).catch(ignoring("EEXIST"));
    const made = await openDirectory(directory, name);
    // By descriptor: the name may have become a link meanwhile, and a link's target is not ours to give away.
    if (this.#owner !== undefined) await lchown(`${self(made)}/.`, this.#owner.uid, this.#owner.gid);
    return made;
  }
}

function checkRegular(stat: Stats, path: string): void {
  const reason = stat.isDirectory() ? "directory" : irregularity(stat);
  if (reason === "directory") throw new AppError("Conflict", `${path} is a directory.`);
  if (reason !== undefined) throw new AppError("Forbidden", `${path} is no regular file (${reason}).`);
}

/** Read to the end, trusting neither the size told (it may grow) nor the file to be as small as it says. */
async function readUpTo(file: number, size: number, maxBytes: number, path: string): Promise<Buffer> {
  const tooLarge = () =>
    new AppError("PayloadTooLarge", `${path} is larger than ${maxBytes} bytes.`, {
      hint: "Raise the limit or make the file smaller.",
    });
  if (size > maxBytes) throw tooLarge();
  let buffer = Buffer.allocUnsafe(size + 1);
  let length = 0;
  for (;;) {
    const { bytesRead } = await readAsync(file, buffer, length, buffer.length - length, null);
    length += bytesRead;
    if (length > maxBytes) throw tooLarge();
    if (bytesRead === 0) return buffer.subarray(0, length);
    if (length === buffer.length) {
      const larger = Buffer.allocUnsafe(Math.min(maxBytes + 1, buffer.length * 2));
      buffer.copy(larger, 0, 0, length);
      buffer = larger;
    }
  }
}

async function writeAll(file: number, content: Uint8Array): Promise<void> {
  for (let done = 0; done < content.length; ) {
    const { bytesWritten } = await writeAsync(file, content, done, content.length - done, null);
    done += bytesWritten;
  }
}
