import * as fs from "node:fs";
import { constants, type Dirent } from "node:fs";
import { lchown, lstat, mkdir, opendir } from "node:fs/promises";
import { promisify } from "node:util";
import { AppError } from "#schemas";
import { writeAll } from "./content.ts";
import {
  at,
  close,
  closeNow,
  ignoring,
  type Name,
  openAt,
  openDirectory,
  openToRead,
  self,
} from "./descriptors.ts";
import { irregularity } from "./walk.ts";

const { O_WRONLY, O_CREAT, O_EXCL } = constants;
const MAX_DEPTH = 128;
const CHUNK_BYTES = 256 * 1024;

const readAsync = promisify(fs.read);
const fchmod = promisify(fs.fchmod);
const fchown = promisify(fs.fchown);

export interface CopyBounds {
  /** Files and directories together. */
  entries: number;
  bytes: number;
  /** Of any one file. */
  fileBytes: number;
  /** ms since 1970. */
  deadline: number;
}

export interface CopyResult {
  /** Files and directories made. */
  entries: number;
  bytes: number;
  /** What was left out: links, hard links, FIFOs, sockets, devices, what cannot be read. */
  skipped: number;
}

export interface CopyPlaces {
  /** Open directories and the names in them. */
  source: number;
  name: Name;
  target: number;
  /** Must not exist. */
  newName: Name;
}

const MARGIN_HINT = "Copy less at a time, or remove what is not needed any more.";

class Copying {
  readonly result: CopyResult = { entries: 0, bytes: 0, skipped: 0 };
  readonly #bounds: CopyBounds;
  readonly #owner: { uid: number; gid: number } | undefined;
  #chunk: Buffer | undefined;

  constructor(bounds: CopyBounds, owner: { uid: number; gid: number } | undefined) {
    this.#bounds = bounds;
    this.#owner = owner;
  }

  /** Copies what can be; answers whether it was. */
  async entry({ source, name, target, newName }: CopyPlaces, depth: number): Promise<boolean> {
    this.#checkTime();
    const stat = await lstat(at(source, name));
    if (irregularity(stat) !== undefined) return false;
    this.#take("entries", 1);
    if (!stat.isDirectory()) return this.#file({ source, name, target, newName });
    if (depth > MAX_DEPTH) {
      throw new AppError("QuotaExceeded", `The tree is deeper than ${MAX_DEPTH} directories.`, {
        hint: MARGIN_HINT,
      });
    }
    const from = openDirectory(source, name);
    try {
      await mkdir(at(target, newName), 0o755);
      const to = openDirectory(target, newName);
      try {
        if (this.#owner !== undefined) await lchown(`${self(to)}/.`, this.#owner.uid, this.#owner.gid);
        await this.#inside(from, to, depth);
      } finally {
        closeNow(to);
      }
    } finally {
      closeNow(from);
    }
    return true;
  }

  async #inside(from: number, to: number, depth: number): Promise<void> {
    const listing = await opendir(self(from), { encoding: "buffer" as BufferEncoding });
    for await (const entry of listing) {
      const { name } = entry as unknown as Dirent<Buffer>;
      const places = { source: from, name, target: to, newName: name };
      const copied = await this.entry(places, depth + 1).catch((error: unknown) => {
        // Gone, locked, or turned into something else while we looked.
        ignoring("ENOENT", "EACCES", "ELOOP", "ENOTDIR", "ENXIO", "EAGAIN")(error);
        return false;
      });
      if (!copied) this.result.skipped += 1;
    }
  }

  async #file({ source, name, target, newName }: CopyPlaces): Promise<boolean> {
    const from = openToRead(source, name);
    try {
      const stat = fs.fstatSync(from);
      if (!stat.isFile() || irregularity(stat) !== undefined) return false;
      this.#checkFile(stat.size);
      const to = await openAt(target, newName, O_WRONLY | O_CREAT | O_EXCL, 0o600);
      try {
        await this.#content(from, to);
        await fchmod(to, (stat.mode & 0o100) === 0 ? 0o644 : 0o755);
        if (this.#owner !== undefined) await fchown(to, this.#owner.uid, this.#owner.gid);
      } finally {
        await close(to);
      }
      return true;
    } finally {
      closeNow(from);
    }
  }

  /** To the end, which may have moved since anybody looked. */
  async #content(from: number, to: number): Promise<void> {
    this.#chunk ??= Buffer.allocUnsafe(CHUNK_BYTES);
    for (let size = 0; ; ) {
      const { bytesRead } = await readAsync(from, this.#chunk, 0, CHUNK_BYTES, null);
      if (bytesRead === 0) return;
      size += bytesRead;
      this.#checkFile(size);
      this.#checkTime();
      this.#take("bytes", bytesRead);
      await writeAll(to, this.#chunk.subarray(0, bytesRead));
    }
  }

  #take(what: "entries" | "bytes", amount: number): void {
    this.result[what] += amount;
    if (this.result[what] > this.#bounds[what]) {
      throw new AppError("QuotaExceeded", `A copy would exceed the ${what} that are left.`, {
        hint: MARGIN_HINT,
      });
    }
  }

  #checkFile(size: number): void {
    const { fileBytes } = this.#bounds;
    if (size > fileBytes) {
      throw new AppError("PayloadTooLarge", `A file of the copy is larger than ${fileBytes} bytes.`, {
        hint: MARGIN_HINT,
      });
    }
  }

  #checkTime(): void {
    if (Date.now() > this.#bounds.deadline) {
      throw new AppError("Timeout", "The copy was not done in time.", { hint: MARGIN_HINT });
    }
  }
}

/**
 * Copy a file or tree between open directories, following nothing. What was made stays when it throws: AppError
 * QuotaExceeded, PayloadTooLarge or Timeout beyond `bounds`, Forbidden when `name` itself is no file or directory.
 */
export async function copyTree(
  places: CopyPlaces,
  bounds: CopyBounds,
  owner?: { uid: number; gid: number },
): Promise<CopyResult> {
  const copying = new Copying(bounds, owner);
  if (!(await copying.entry(places, 0))) {
    throw new AppError("Forbidden", `${places.name.toString()} is neither a plain file nor a directory.`);
  }
  return copying.result;
}
