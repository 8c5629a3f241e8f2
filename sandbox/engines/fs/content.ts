import type { Stats } from "node:fs";
import * as fs from "node:fs";
import { promisify } from "node:util";
import { AppError } from "#schemas";
import { irregularity } from "./walk.ts";

const readAsync = promisify(fs.read);
const writeAsync = promisify(fs.write);

/** @throws AppError Conflict for a directory, Forbidden for what is neither directory nor plain file. */
export function checkRegular(stat: Stats, path: string): void {
  const reason = stat.isDirectory() ? "directory" : irregularity(stat);
  if (reason === "directory") throw new AppError("Conflict", `${path} is a directory.`);
  if (reason !== undefined) throw new AppError("Forbidden", `${path} is no regular file (${reason}).`);
}

/** Read to the end, trusting neither the size told (it may grow) nor the file to be as small as it says. */
export async function readUpTo(file: number, size: number, maxBytes: number, path: string): Promise<Buffer> {
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
    // As large as it said, and with room for more it gave none: that is the end.
    const complete = length === size && length < buffer.length;
    if (bytesRead === 0 || complete) return buffer.subarray(0, length);
    if (length === buffer.length) {
      const larger = Buffer.allocUnsafe(Math.min(maxBytes + 1, buffer.length * 2));
      buffer.copy(larger, 0, 0, length);
      buffer = larger;
    }
  }
}

/** Write all of it where the descriptor stands. */
export async function writeAll(file: number, content: Uint8Array): Promise<void> {
  for (let done = 0; done < content.length; ) {
    const { bytesWritten } = await writeAsync(file, content, done, content.length - done, null);
    done += bytesWritten;
  }
}
