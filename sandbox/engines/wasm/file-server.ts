import { within } from "#platform/waiting.ts";
import { AppError, type ErrorCode } from "#schemas";
import { ERRNO } from "./host/file-client.ts";
import type { FileOperation } from "./host/protocol.ts";
import { WASM_LIMITS } from "./limits.ts";
import type { WasmFiles } from "./types.ts";

export interface FileAnswer {
  errno: number;
  bytes: Uint8Array;
}

const MAX_PATH_CHARS = 1024;
const ERRNO_OF: Partial<Record<ErrorCode, number>> = {
  NotFound: ERRNO.noEntry,
  InvalidParams: ERRNO.invalid,
  QuotaExceeded: ERRNO.noSpace,
  PayloadTooLarge: ERRNO.tooBig,
  Forbidden: ERRNO.notCapable,
};

/** Relative, `/` between its parts, none of them empty, `.` or `..`. */
function isPlain(path: string): boolean {
  if (path === "") return true;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: those are what is looked for.
  if (path.length > MAX_PATH_CHARS || /[\0-\x1f\x7f]/.test(path)) return false;
  return path.split("/").every((part) => part !== "" && part !== "." && part !== "..");
}

const bounded = <T>(work: Promise<T>) => within(WASM_LIMITS.fileTimeoutMs, "A module's files", () => work);

const failed = (errno: number): FileAnswer => ({ errno, bytes: new Uint8Array() });

async function serve(
  files: WasmFiles,
  operation: FileOperation,
  path: string,
  content: Uint8Array,
): Promise<FileAnswer> {
  const maxBytes = Math.min(files.maxBytes, WASM_LIMITS.fileBytes);
  if (operation === "list") {
    const entries = await bounded(files.list(path));
    if (entries === undefined) return failed(ERRNO.noEntry);
    const some = entries
      .slice(0, WASM_LIMITS.fileEntries)
      .map(({ name, directory, size }) => ({ name, directory, size }));
    return { errno: 0, bytes: new TextEncoder().encode(JSON.stringify(some)) };
  }
  if (path === "") return failed(ERRNO.isDirectory);
  if (operation === "read") {
    const bytes = await bounded(files.read(path));
    if (bytes === undefined) return failed(ERRNO.noEntry);
    return bytes.length > maxBytes ? failed(ERRNO.tooBig) : { errno: 0, bytes };
  }
  if (files.write === undefined) return failed(ERRNO.readOnly);
  if (content.length > maxBytes) return failed(ERRNO.tooBig);
  // A copy: the caller may keep it, and it is a part of what came from the host.
  await bounded(files.write(path, content.slice()));
  return { errno: 0, bytes: new Uint8Array() };
}

/** Do what a module asks of its files. Never throws: the answer holds an error number of WASI. */
export async function serveFile(
  files: WasmFiles | undefined,
  operation: FileOperation,
  path: string,
  content: Uint8Array,
): Promise<FileAnswer> {
  if (files === undefined) return failed(ERRNO.noEntry);
  if (!isPlain(path)) return failed(ERRNO.notCapable);
  try {
    return await serve(files, operation, path, content);
  } catch (error) {
    return failed((error instanceof AppError ? ERRNO_OF[error.code] : undefined) ?? ERRNO.io);
  }
}
