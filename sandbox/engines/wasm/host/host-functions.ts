import { ERRNO, type FileClient, FileError, MAX_PATH_BYTES, resolvePath } from "./file-client.ts";

/** The module's memory as it is now: growing replaces the buffer. */
export type MemoryOf = () => Uint8Array;

/**
 * The import module `cds`: the project's files for modules that know no WASI. Paths are UTF-8, relative to the
 * project, with `/`. All parameters and results are i32; a negative result is an error number of WASI, negated.
 *
 *     file_size(path, path_len) -> bytes
 *     file_read(path, path_len, buffer, buffer_len) -> bytes of the whole file; as many as fit are in the buffer
 *     file_write(path, path_len, bytes, bytes_len) -> bytes_len
 *     file_list(path, path_len, buffer, buffer_len) -> as file_read: names, one a line, those of directories end in `/`
 */
export function cdsFunctions(
  files: FileClient,
  memory: MemoryOf,
): Record<string, (...args: number[]) => number> {
  const part = (at = 0, length = 0): Uint8Array => {
    const bytes = memory();
    if (at + length > bytes.length) throw new FileError(ERRNO.fault);
    return bytes.subarray(at, at + length);
  };
  const path = (at = 0, length = 0): string => {
    if (length > MAX_PATH_BYTES) throw new FileError(ERRNO.nameTooLong);
    return resolvePath("", new TextDecoder().decode(part(at, length)));
  };
  const fill = (buffer: Uint8Array, bytes: Uint8Array): number => {
    buffer.set(bytes.subarray(0, buffer.length));
    return bytes.length;
  };
  const functions: Record<string, (...args: number[]) => number> = {
    file_size(at, length) {
      const found = files.find(path(at, length));
      if (found === undefined) return -ERRNO.noEntry;
      return found.directory ? -ERRNO.isDirectory : found.size;
    },
    file_read: (at, length, buffer, size) => fill(part(buffer, size), files.read(path(at, length))),
    file_write(at, length, buffer, size) {
      files.write(path(at, length), part(buffer, size).slice());
      return size ?? 0;
    },
    file_list(at, length, buffer, size) {
      const lines = files
        .list(path(at, length))
        .map(({ name, directory }) => `${name}${directory ? "/" : ""}\n`);
      return fill(part(buffer, size), new TextEncoder().encode(lines.join("")));
    },
  };
  return Object.fromEntries(
    Object.entries(functions).map(([name, act]) => [
      name,
      (...args: number[]) => {
        try {
          return act(...args);
        } catch (error) {
          if (error instanceof FileError) return -error.errno;
          throw error;
        }
      },
    ]),
  );
}

/** How many bytes a call of each moves. */
export const CDS_BYTES: Readonly<Record<string, (...args: number[]) => number>> = {
  file_size: (_at, length = 0) => length,
  file_read: (_at, length = 0, _buffer, size = 0) => length + size,
  file_write: (_at, length = 0, _buffer, size = 0) => length + size,
  file_list: (_at, length = 0, _buffer, size = 0) => length + size,
};
