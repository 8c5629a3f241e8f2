import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { AppError } from "#schemas";

/** Magic, version, tensor count and metadata count: what every GGUF file begins with (GGUF specification, v3). */
const HEADER_BYTES = 24;
/** Enough of what is not GGUF to say what it is instead. */
const LOOK_BYTES = 64;
/** Version 1 had other counts and no engine reads it any more. */
const VERSIONS = [2, 3];
/** The largest published models have some thousands of tensors and some hundreds of entries. */
const MAX_TENSORS = 1_000_000n;
const MAX_METADATA = 1_000_000n;
/** A tensor's description: name, dimensions, type and offset; a metadata entry: key, type and value. */
const LEAST_TENSOR_BYTES = 32n;
const LEAST_METADATA_BYTES = 14n;

export interface GgufHeader {
  version: number;
  tensors: number;
  metadata: number;
}

/**
 * Whether a file begins as a GGUF file does, with counts it has room for. Reads its first bytes only: the rest is
 * the engine's to judge.
 * @throws AppError InvalidModel, saying what the file is instead; NotFound.
 */
export async function checkGgufHeader(path: string): Promise<GgufHeader> {
  // Not waiting: opening a named pipe would, until somebody writes into it.
  const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((error: unknown) => {
    throw unreadable(error);
  });
  try {
    const stat = await handle.stat();
    if (!stat.isFile()) throw invalid("That is no file.");
    if (stat.size === 0) throw invalid("The file is empty.");
    return readHeader(await firstBytes(handle), BigInt(stat.size));
  } finally {
    await handle.close();
  }
}

async function firstBytes(handle: FileHandle): Promise<Buffer> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(LOOK_BYTES), 0, LOOK_BYTES, 0);
  return buffer.subarray(0, bytesRead);
}

function readHeader(bytes: Buffer, size: bigint): GgufHeader {
  if (bytes.subarray(0, 4).toString("latin1") !== "GGUF") throw invalid(whatElse(bytes));
  if (bytes.length < HEADER_BYTES) throw invalid("The file ends within its header.");
  const version = bytes.readUInt32LE(4);
  if (VERSIONS.includes(bytes.readUInt32BE(4))) {
    throw invalid("The file is written for big-endian machines.");
  }
  if (!VERSIONS.includes(version)) throw invalid(`GGUF version ${version} is not supported.`);
  const tensors = bytes.readBigUInt64LE(8);
  const metadata = bytes.readBigUInt64LE(16);
  if (tensors === 0n || metadata === 0n)
    throw invalid("The file holds no model: it has no tensors or no metadata.");
  const least = BigInt(HEADER_BYTES) + tensors * LEAST_TENSOR_BYTES + metadata * LEAST_METADATA_BYTES;
  if (tensors > MAX_TENSORS || metadata > MAX_METADATA || least > size) {
    throw invalid(
      `The file's header is absurd: ${tensors} tensors and ${metadata} entries in ${size} bytes.`,
    );
  }
  return { version, tensors: Number(tensors), metadata: Number(metadata) };
}

function whatElse(bytes: Buffer): string {
  const text = bytes.toString("latin1").trimStart();
  if (/^<(!doctype|html|\?xml|head|body)/i.test(text)) return "The file is a web page, not a model.";
  if (text.startsWith("version https://git-lfs")) {
    return "The file is a pointer of Git LFS, not the model it points to.";
  }
  if (text.startsWith("{")) return "The file is JSON, not a model.";
  return "The file is not a GGUF model: it does not begin with GGUF.";
}

function unreadable(error: unknown): AppError {
  const code = error instanceof Error && "code" in error ? String(error.code) : "unknown";
  if (code === "ENOENT") return new AppError("NotFound", "There is no such model file.");
  return invalid(`The file cannot be read (${code}).`, error);
}

function invalid(message: string, cause?: unknown): AppError {
  const hint = "Download a GGUF file made for llama.cpp, whole and not split.";
  return new AppError("InvalidModel", message, { hint }, cause);
}
