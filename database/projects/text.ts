import { isUtf8 } from "node:buffer";

/** Text can be merged and shown; anything with a NUL byte or that is not UTF-8 is binary. */
export function isText(content: Buffer): boolean {
  return !content.includes(0) && isUtf8(content);
}

/** UTF-8 to a string that encodes back to the same bytes (a byte order mark stays). */
export function decodeText(content: Buffer): string {
  return content.toString("utf8");
}
