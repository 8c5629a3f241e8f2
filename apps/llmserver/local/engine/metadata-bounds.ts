import { type FileHandle, open } from "node:fs/promises";
import { LoadRefusal } from "./refusal.ts";

/** `GGUF` read as a little-endian number. */
const MAGIC = 0x46_55_47_47;
const VERSIONS = [2, 3];
const MAX_TENSORS = 100_000;
const MAX_METADATA = 100_000;
const MAX_DIMENSIONS = 4;
const CHUNK_BYTES = 1 << 20;
/** Bytes of a fixed-size value by its type in the file; 8 = text, 9 = list. */
const VALUE_BYTES: Readonly<Record<number, number>> = {
  0: 1,
  1: 1,
  2: 2,
  3: 2,
  4: 4,
  5: 4,
  6: 4,
  7: 1,
  10: 8,
  11: 8,
  12: 8,
};
const TEXT = 8;
const LIST = 9;
/** The shortest text is its length alone. */
const MIN_TEXT_BYTES = 8;

/**
 * Walk through the header of a GGUF file: every count and length must fit into the file that states it. Parsers trust them
 * and would reserve gigabytes for a file of a few bytes.
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 * @throws LoadRefusal InvalidModel.
 */
export async function checkBounds(path: string): Promise<void> {
  let file: FileHandle;
  try {
    file = await open(path, "r");
  } catch (error) {
    throw new LoadRefusal("InvalidModel", "The model's file cannot be opened.", error);
  }
  try {
    const { size } = await file.stat();
    await walk(new Reader(file, size));
  } finally {
    await file.close();
  }
}

async function walk(reader: Reader): Promise<void> {
  if (reader.left < 24) throw broken("It is too short to be a model.");
  if ((await reader.u32()) !== MAGIC) throw broken("It is no GGUF file.");
  const version = await reader.u32();
  if (!VERSIONS.includes(version)) throw broken(`Its GGUF version ${version} is not known; 2 and 3 are.`);
  const tensors = await reader.count(MAX_TENSORS, 24, "tensors");
  const entries = await reader.count(MAX_METADATA, 13, "metadata entries");
  for (let entry = 0; entry < entries; entry++) {
    await reader.text();
    await value(reader, await reader.u32());
  }
  for (let tensor = 0; tensor < tensors; tensor++) {
    await reader.text();
    const dimensions = await reader.u32();
    if (dimensions > MAX_DIMENSIONS) throw broken(`A tensor has ${dimensions} dimensions.`);
    await reader.skip(dimensions * 8 + 12);
  }
}

async function value(reader: Reader, type: number): Promise<void> {
  if (type === TEXT) return reader.text();
  if (type !== LIST) return reader.skip(bytesOf(type));
  const element = await reader.u32();
  if (element === LIST) throw broken("Its metadata has a list of lists.");
  const each = element === TEXT ? MIN_TEXT_BYTES : bytesOf(element);
  const length = await reader.count(Number.MAX_SAFE_INTEGER, each, "values in a list");
  if (element !== TEXT) return reader.skip(length * each);
  for (let index = 0; index < length; index++) await reader.text();
}

function bytesOf(type: number): number {
  const bytes = VALUE_BYTES[type];
  if (bytes === undefined) throw broken(`Its metadata has a value of the unknown type ${type}.`);
  return bytes;
}

function broken(what: string): LoadRefusal {
  return new LoadRefusal("InvalidModel", `The model's file is broken. ${what}`);
}

/** Reads forward in pieces; nothing is believed that goes beyond the file's end. */
class Reader {
  readonly #file: FileHandle;
  readonly #size: number;
  readonly #buffer = Buffer.alloc(CHUNK_BYTES);
  #bufferStart = 0;
  #bufferEnd = 0;
  #position = 0;

  constructor(file: FileHandle, size: number) {
    this.#file = file;
    this.#size = size;
  }

  get left(): number {
    return this.#size - this.#position;
  }

  async u32(): Promise<number> {
    const at = await this.#need(4);
    return this.#buffer.readUInt32LE(at);
  }

  async count(limit: number, bytesEach: number, what: string): Promise<number> {
    const at = await this.#need(8);
    const count = this.#buffer.readBigUInt64LE(at);
    if (count > BigInt(limit) || count > BigInt(Math.floor(this.left / bytesEach))) {
      throw broken(`It claims to have ${count} ${what}, more than it has room for.`);
    }
    return Number(count);
  }

  async text(): Promise<void> {
    await this.skip(await this.count(this.left, 1, "bytes of text"));
  }

  skip(bytes: number): void {
    if (bytes > this.left) throw broken("It ends in the middle of its header.");
    this.#position += bytes;
  }

  /** Where in the buffer the next bytes are; they are passed over. */
  async #need(bytes: number): Promise<number> {
    if (bytes > this.left) throw broken("It ends in the middle of its header.");
    if (this.#position < this.#bufferStart || this.#position + bytes > this.#bufferEnd) {
      const { bytesRead } = await this.#file.read(this.#buffer, 0, CHUNK_BYTES, this.#position);
      if (bytesRead < bytes) throw broken("It ends in the middle of its header.");
      this.#bufferStart = this.#position;
      this.#bufferEnd = this.#position + bytesRead;
    }
    const at = this.#position - this.#bufferStart;
    this.#position += bytes;
    return at;
  }
}
