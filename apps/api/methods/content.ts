import { isUtf8 } from "node:buffer";
import { decodeText, isText } from "#database/projects/index.ts";
import { AppError } from "#schemas";

export type Encoding = "utf8" | "base64";

export interface Content {
  content: string;
  encoding: Encoding;
  size: number;
}

const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;

/**
 * The bytes a caller sent. `field` names the param for an error.
 * @throws AppError InvalidParams for what would not come back as it was sent.
 */
export function decodeContent(content: string, encoding: Encoding, field = "params.content"): Buffer {
  if (encoding === "base64") {
    if (content.length % 4 !== 0 || !BASE64.test(content)) throw invalid(field, "It is not valid base64.");
    return Buffer.from(content, "base64");
  }
  if (!content.isWellFormed()) throw invalid(field, "It has half a character (a lone surrogate) in it.");
  return Buffer.from(content, "utf8");
}

/**
 * A file as a caller reads it: text as utf8, anything else as base64, unless one is asked for.
 * @throws AppError InvalidParams when utf8 is asked for and the file is not.
 */
export function encodeContent(content: Buffer, wanted?: Encoding): Content {
  if (wanted === "utf8" && !isUtf8(content)) {
    throw invalid("params.encoding", 'The file is not UTF-8 text; ask for "base64".');
  }
  const encoding = wanted ?? (isText(content) ? "utf8" : "base64");
  const text = encoding === "utf8" ? decodeText(content) : content.toString("base64");
  return { content: text, encoding, size: content.length };
}

function invalid(path: string, message: string): AppError {
  return new AppError("InvalidParams", `${path}: ${message}`, { issues: [{ path, message }] });
}
