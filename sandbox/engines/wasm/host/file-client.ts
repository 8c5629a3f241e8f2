import { type MessagePort, receiveMessageOnPort } from "node:worker_threads";
import type { FileOperation, FromWorker, ListedFile } from "./protocol.ts";

/** Numbers of errors as WASI has them. */
export const ERRNO = {
  ok: 0,
  badDescriptor: 8,
  exists: 20,
  fault: 21,
  tooBig: 22,
  invalid: 28,
  io: 29,
  isDirectory: 31,
  tooManyOpen: 33,
  nameTooLong: 37,
  noEntry: 44,
  noSystemCall: 52,
  noSpace: 51,
  notDirectory: 54,
  notSupported: 58,
  readOnly: 69,
  notCapable: 76,
} as const;

/** The longest the server may take for one answer, ms. */
const ANSWER_MS = 30_000;
export const MAX_PATH_BYTES = 4096;

/** A file operation failed: with an error number of WASI. */
export class FileError extends Error {
  readonly errno: number;

  constructor(errno: number) {
    super(`file error ${errno}`);
    this.errno = errno;
  }
}

export interface FileClientOptions {
  /** The server answers here; `flag` counts the answers. */
  port: MessagePort;
  flag: Int32Array;
  send: (message: FromWorker) => void;
  /** Size of the largest file; 0: the caller gave no files. */
  maxBytes: number;
  writable: boolean;
}

/** `path` below `directory`, without `.` and `..`; "" is the project itself. Throws FileError when it leads out. */
export function resolvePath(directory: string, path: string): string {
  if (path.startsWith("/")) throw new FileError(ERRNO.notCapable);
  if (path.includes("\0")) throw new FileError(ERRNO.invalid);
  const parts = directory === "" ? [] : directory.split("/");
  for (const part of path.split("/")) {
    if (part === "" || part === ".") continue;
    if (part !== "..") parts.push(part);
    else if (parts.pop() === undefined) throw new FileError(ERRNO.notCapable);
  }
  return parts.join("/");
}

/** The project's files, asked of the server while the module waits. */
export class FileClient {
  readonly maxBytes: number;
  readonly writable: boolean;
  readonly #options: FileClientOptions;
  /** An answer did not come in time: were it to come later, it would be taken for the next one. */
  #broken = false;

  constructor(options: FileClientOptions) {
    this.#options = options;
    this.maxBytes = options.maxBytes;
    this.writable = options.writable;
  }

  read(path: string): Uint8Array {
    return this.#ask("read", path);
  }

  /** Entries of a directory. */
  list(path: string): ListedFile[] {
    return JSON.parse(new TextDecoder().decode(this.#ask("list", path))) as ListedFile[];
  }

  write(path: string, bytes: Uint8Array): void {
    if (!this.writable) throw new FileError(ERRNO.readOnly);
    if (bytes.length > this.maxBytes) throw new FileError(ERRNO.tooBig);
    this.#ask("write", path, bytes);
  }

  /** What is at `path`; undefined when nothing. */
  find(path: string): ListedFile | undefined {
    if (path === "") return { name: "", directory: true, size: 0 };
    const slash = path.lastIndexOf("/");
    const name = path.slice(slash + 1);
    return this.list(path.slice(0, Math.max(0, slash))).find((entry) => entry.name === name);
  }

  #ask(operation: FileOperation, path: string, bytes: Uint8Array = new Uint8Array()): Uint8Array {
    const { port, flag, send, maxBytes } = this.#options;
    if (maxBytes === 0) throw new FileError(ERRNO.noEntry);
    if (this.#broken) throw new FileError(ERRNO.io);
    const before = Atomics.load(flag, 0);
    send({ kind: "file", operation, path, bytes });
    Atomics.wait(flag, 0, before, ANSWER_MS);
    const answer = receiveMessageOnPort(port)?.message as { errno: number; bytes: Uint8Array } | undefined;
    this.#broken = answer === undefined;
    if (answer === undefined) throw new FileError(ERRNO.io);
    if (answer.errno !== 0) throw new FileError(answer.errno);
    return answer.bytes;
  }
}
