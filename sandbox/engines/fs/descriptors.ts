import * as fs from "node:fs";
import { promisify } from "node:util";
import { AppError } from "#schemas";

/** linux/fcntl.h; Node does not name it. A handle on the place alone: opening a FIFO so cannot hang. */
const O_PATH = 0o10000000;
const { O_DIRECTORY, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = fs.constants;

const openAsync = promisify(fs.open);
const closeAsync = promisify(fs.close);

/** A name in a directory, as the kernel gave it: names need not be text. */
export type Name = string | Buffer;

/**
 * The path of `name` in an open directory. The kernel resolves /proc/self/fd/N to that very directory
 * whatever has been renamed meanwhile, which makes this openat(2) and its siblings.
 */
export function at(directory: number, name: Name): Name {
  const prefix = `/proc/self/fd/${directory}/`;
  return typeof name === "string" ? prefix + name : Buffer.concat([Buffer.from(prefix), name]);
}

/** The open directory itself, as a path. */
export const self = (directory: number) => `/proc/self/fd/${directory}`;

export async function close(descriptor: number): Promise<void> {
  await closeAsync(descriptor);
}

/** Open `name`, never through a link in its last part: ELOOP then. */
export function openAt(directory: number, name: Name, flags: number, mode?: number): Promise<number> {
  return openAsync(at(directory, name), flags | O_NOFOLLOW, mode);
}

/**
 * A handle on a directory; ELOOP or ENOTDIR when it is a link or something else. At once, in the calling thread: nearly
 * always the kernel has the name in memory, and a trip to the thread pool costs ten times the call. Nothing a user does
 * to a directory makes such an open wait.
 */
export function openDirectory(directory: number, name: Name): number {
  return fs.openSync(at(directory, name), O_PATH | O_DIRECTORY | O_NOFOLLOW);
}

/** For reading, whatever it is; neither a FIFO's other end nor the holder of a lease is waited for (EAGAIN then). */
export function openToRead(directory: number, name: Name): number {
  return fs.openSync(at(directory, name), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
}

/** Give back a descriptor that nothing was written through: there is nothing to wait for. */
export function closeNow(descriptor: number): void {
  fs.closeSync(descriptor);
}

/** A handle on the directory that is the root of a walk; the way to it is the caller's own. */
export function openRoot(path: string): Promise<number> {
  return openAsync(path, O_PATH | O_DIRECTORY | O_NOFOLLOW);
}

export function errorCode(error: unknown): string | undefined {
  return error instanceof Error && "code" in error ? String(error.code) : undefined;
}

/** Swallow these outcomes of a race, pass on the rest. */
export function ignoring(...codes: string[]): (error: unknown) => undefined {
  return (error) => {
    if (!codes.includes(errorCode(error) ?? "")) throw error;
    return undefined;
  };
}

/** What went wrong in the jail, in words for its caller. */
export function toJailError(error: unknown, path: string): unknown {
  switch (errorCode(error)) {
    case "ENOENT":
      return new AppError("NotFound", `There is no ${path}.`, {}, error);
    case "ELOOP":
      return new AppError(
        "Forbidden",
        `${path} is or lies behind a link, and links are not followed.`,
        {},
        error,
      );
    case "ENOTDIR":
    case "EISDIR":
    case "EEXIST":
    case "ENOTEMPTY":
      return new AppError(
        "Conflict",
        `${path}: a file stands where a directory is meant, or the reverse.`,
        {},
        error,
      );
    case "EACCES":
    case "EPERM":
    case "EROFS":
    case "ENXIO":
      return new AppError("Forbidden", `${path} cannot be opened.`, {}, error);
    case "EAGAIN":
      return new AppError(
        "Conflict",
        `Another program holds ${path} for itself.`,
        { hint: "Try again when it has let go of it." },
        error,
      );
    case "ENOSPC":
    case "EDQUOT":
      return new AppError("QuotaExceeded", "The disk is full.", {}, error);
    default:
      return error;
  }
}
