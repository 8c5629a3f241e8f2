import { createHash, type Hash } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, link, lstat, open, readFile, rm, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { asObject, parseForeignJson } from "#platform/json.ts";
import { AppError } from "#schemas";
import { cancelled, storageFailure } from "./failures.ts";

const READ_BYTES = 1024 * 1024;

/** What a part is a part of: only the very same file is gone on with. */
export interface PartIdentity {
  /** For people; what counts is the content's hash. */
  url: string;
  oid: string;
  size: number;
}

/** Told so many bytes read. */
type OnRead = (bytes: number) => void;

/**
 * The beginning of a file that is being downloaded: `<target>.part`, with `<target>.part.json` beside it that says
 * of what. It outlives the process, is gone on with, and becomes the target in one step.
 * Every method throws AppError (QuotaExceeded, DownloadFailed) when the disk refuses.
 */
export class PartFile implements AsyncDisposable {
  readonly target: string;
  #handle: FileHandle;
  #hash: Hash = createHash("sha256");
  #bytes: number;

  private constructor(target: string, handle: FileHandle, bytes: number) {
    this.target = target;
    this.#handle = handle;
    this.#bytes = bytes;
  }

  /** Open what is there of `identity`, or begin anew. */
  static async open(target: string, identity: PartIdentity): Promise<PartFile> {
    try {
      const kept = await keptBytes(target, identity);
      if (kept === undefined) {
        await removePart(target);
        await writeFile(infoPath(target), JSON.stringify(identity), { mode: 0o600, flag: "wx" });
      }
      const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
      return new PartFile(target, await open(partPath(target), flags, 0o600), kept ?? 0);
    } catch (error) {
      throw storageFailure(error);
    }
  }

  get path(): string {
    return partPath(this.target);
  }

  /** How much of the file is there. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Take what is there already into the hash. Once, before anything is appended. */
  async hashKept(signal: AbortSignal, onRead: OnRead): Promise<void> {
    await hashInto(this.#hash, this.#handle, this.#bytes, signal, onRead);
  }

  async append(chunk: Uint8Array): Promise<void> {
    try {
      for (let done = 0; done < chunk.length; ) {
        const { bytesWritten } = await this.#handle.write(
          chunk,
          done,
          chunk.length - done,
          this.#bytes + done,
        );
        done += bytesWritten;
      }
    } catch (error) {
      throw storageFailure(error);
    }
    this.#hash.update(chunk);
    this.#bytes += chunk.length;
  }

  /** Forget what is there. */
  async restart(): Promise<void> {
    await this.#handle.truncate(0).catch((error: unknown) => {
      throw storageFailure(error);
    });
    this.#bytes = 0;
    this.#hash = createHash("sha256");
  }

  /** sha256 of what is there, in hex. */
  digest(): string {
    return this.#hash.copy().digest("hex");
  }

  /** Remove it for good. */
  async remove(): Promise<void> {
    await removePart(this.target);
  }

  /**
   * Make it the target, which must not exist: a link is made or not, and never replaces anything, unlike rename.
   * @throws AppError Conflict.
   */
  async finish(): Promise<void> {
    try {
      await this.#handle.sync();
      await link(this.path, this.target);
      await removePart(this.target);
      await syncDirectory(dirname(this.target));
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "EEXIST") throw targetExists();
      throw storageFailure(error);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close();
    if (this.#bytes === 0) await removePart(this.target);
  }
}

/** A file of that name is there, and it is not the one wanted. */
function targetExists(): AppError {
  return new AppError("Conflict", "Another file of that name is in the models directory.", {
    hint: "Remove that model first, or give this one another name.",
  });
}

/**
 * Whether the very file that is wanted is there already, judged by its size and sha256.
 * @throws AppError Conflict when something else is there, Cancelled.
 */
export async function existingTarget(
  target: string,
  { oid, size }: PartIdentity,
  signal: AbortSignal,
  onRead: OnRead,
): Promise<boolean> {
  const stat = await lstat(target).catch(() => undefined);
  if (stat === undefined) return false;
  if (!stat.isFile() || stat.size !== size) throw targetExists();
  const handle = await open(target, constants.O_RDONLY | constants.O_NOFOLLOW).catch((error: unknown) => {
    throw storageFailure(error);
  });
  try {
    const hash = createHash("sha256");
    await hashInto(hash, handle, size, signal, onRead);
    if (hash.digest("hex") !== oid) throw targetExists();
    return true;
  } finally {
    await handle.close();
  }
}

/** Remove what is left of a download. */
export async function removePart(target: string): Promise<void> {
  await rm(partPath(target), { force: true });
  await rm(infoPath(target), { force: true });
}

const partPath = (target: string) => `${target}.part`;
const infoPath = (target: string) => `${target}.part.json`;

/** Bytes of the part that is there, if it is one of this file. */
async function keptBytes(target: string, { oid, size }: PartIdentity): Promise<number | undefined> {
  const stat = await lstat(partPath(target)).catch(() => undefined);
  const text = await readFile(infoPath(target), "utf8").catch(() => "");
  const info = text === "" ? undefined : parsed(text);
  if (stat === undefined || info === undefined || info.oid !== oid || info.size !== size) return undefined;
  return stat.isFile() && stat.size <= size ? stat.size : undefined;
}

function parsed(text: string): Record<string, unknown> | undefined {
  try {
    return asObject(parseForeignJson(text));
  } catch {
    // Cut short by a power cut, for instance.
    return undefined;
  }
}

/** @throws AppError Cancelled, DownloadFailed when reading fails. */
async function hashInto(
  hash: Hash,
  handle: FileHandle,
  bytes: number,
  signal: AbortSignal,
  onRead: OnRead,
): Promise<void> {
  const buffer = Buffer.allocUnsafe(READ_BYTES);
  for (let at = 0; at < bytes; ) {
    if (signal.aborted) throw cancelled(signal);
    const length = Math.min(READ_BYTES, bytes - at);
    const { bytesRead } = await handle.read(buffer, 0, length, at).catch((error: unknown) => {
      throw storageFailure(error);
    });
    // Somebody cut it shorter: the hash will differ, which is all there is to say.
    if (bytesRead === 0) return;
    hash.update(buffer.subarray(0, bytesRead));
    at += bytesRead;
    onRead(at);
  }
}

/** So that the new name outlives a power cut. */
async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, constants.O_RDONLY);
  await handle.sync().finally(() => handle.close());
}
