import { AppError } from "#schemas";

const MAX_NAME_BYTES = 255;
const MAX_PATH_BYTES = 4096;

function refuse(message: string): never {
  throw new AppError("InvalidParams", message, { hint: "Paths are relative, with `/` between names." });
}

/**
 * The names a relative path consists of; none for "" and ".". Throws AppError InvalidParams for an absolute
 * path, `..`, NUL, text that is no valid Unicode, and names or paths longer than the kernel takes.
 */
export function splitPath(path: string): string[] {
  if (path.includes("\0")) refuse("A path cannot hold a NUL.");
  if (!path.isWellFormed()) refuse("The path is not valid Unicode.");
  if (path.startsWith("/")) refuse("The path is absolute.");
  if (Buffer.byteLength(path) > MAX_PATH_BYTES) refuse(`The path is longer than ${MAX_PATH_BYTES} bytes.`);
  const names = path.split("/").filter((name) => name !== "" && name !== ".");
  if (names.includes("..")) refuse("The path leads upwards.");
  if (names.some((name) => Buffer.byteLength(name) > MAX_NAME_BYTES)) {
    refuse(`A name in the path is longer than ${MAX_NAME_BYTES} bytes.`);
  }
  return names;
}
