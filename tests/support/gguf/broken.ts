import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { cachedModel } from "./cache.ts";
import { defineModel } from "./catalogue.ts";
import { type Entry, type ModelFile, text, u32, writeGguf } from "./file-format.ts";
import { fixed, valuesOf } from "./tensors.ts";

interface BrokenModel {
  name: string;
  path: string;
  /** What is wrong with it. */
  why: string;
}

const BASE = "tiny-bpe";
const PAGE = "<!DOCTYPE html>\n<html><head><title>404</title></head><body>Entry not found</body></html>\n";

/** Where the parts of a file's header are, in bytes. */
const VERSION_AT = 4;
const TENSOR_COUNT_AT = 8;
const ENTRY_COUNT_AT = 16;
const FIRST_KEY_AT = 24;
/** Within the metadata: far behind the first entries, and far before the last. */
const WITHIN_METADATA = 2000;
const LOST_TAIL = 64;
const HUGE = 2n ** 60n;

/** What is done to a good file's bytes. */
const DAMAGES: Readonly<Record<string, { why: string; damage: (bytes: Buffer) => Buffer }>> = {
  empty: { why: "It has no bytes.", damage: () => Buffer.alloc(0) },
  "web-page": { why: "It is a page that tells of an error.", damage: () => Buffer.from(PAGE) },
  "header-cut": {
    why: "It ends within its metadata.",
    damage: (bytes) => bytes.subarray(0, WITHIN_METADATA),
  },
  half: { why: "Its second half is missing.", damage: (bytes) => bytes.subarray(0, bytes.length / 2) },
  "tail-cut": { why: "Its last 64 bytes are missing.", damage: (bytes) => bytes.subarray(0, -LOST_TAIL) },
  "wrong-magic": { why: "It begins with GGML.", damage: changed((bytes) => bytes.write("GGML")) },
  "unknown-version": {
    why: "It is of version 99.",
    damage: changed((bytes) => bytes.writeUInt32LE(99, VERSION_AT)),
  },
  "huge-tensor-count": { why: "It claims 2^60 tensors.", damage: huge(() => TENSOR_COUNT_AT) },
  "huge-entry-count": { why: "It claims 2^60 metadata entries.", damage: huge(() => ENTRY_COUNT_AT) },
  "huge-text": { why: "Its first key claims 2^60 bytes.", damage: huge(() => FIRST_KEY_AT) },
  // Behind a list's key: type, type of the elements, length.
  "huge-list": {
    why: "Its list of tokens claims 2^60 entries.",
    damage: huge((bytes) => after(bytes, "tokenizer.ggml.tokens") + 8),
  },
  // Behind a matrix' name: number of dimensions, two dimensions, type, where its data begins.
  "huge-tensor": {
    why: "A matrix claims 2^60 rows.",
    damage: huge((bytes) => after(bytes, "token_embd.weight") + 12),
  },
  "unknown-tensor-type": {
    why: "A matrix is of type 99.",
    damage: changed((bytes) => bytes.writeUInt32LE(99, after(bytes, "token_embd.weight") + 20)),
  },
  "tensor-beyond-the-end": {
    why: "A matrix' data begins 2^60 bytes after the header's end.",
    damage: huge((bytes) => after(bytes, "token_embd.weight") + 24),
  },
};

/** What is left out of a model, or wrong in it, before it is written in good order. */
const DEFECTS: Readonly<Record<string, { why: string; change: (model: ModelFile) => ModelFile }>> = {
  "not-a-number": {
    why: "All values of a matrix are NaN. Only checking the tensors finds it.",
    change: withoutNumbers,
  },
  "no-tokenizer": {
    why: "It has no tokens.",
    change: ({ metadata, tensors }) => ({
      metadata: metadata.filter(([key]) => !key.startsWith("tokenizer.")),
      tensors,
    }),
  },
  "missing-tensor": {
    why: "A matrix its architecture needs is not there.",
    change: ({ metadata, tensors }) => ({
      metadata,
      tensors: tensors.filter(({ name }) => name !== "blk.1.attn_q.weight"),
    }),
  },
  "unknown-architecture": {
    why: "Nobody knows its architecture.",
    change: replacing(["general.architecture", text("unheard-of")]),
  },
  "no-layers": { why: "It claims to have no layers.", change: replacing(["llama.block_count", u32(0)]) },
};

/**
 * Files that are no models, or broken ones, in this directory; it is made when it is not there.
 * None of them can be loaded, except `not-a-number` when the tensors are not checked.
 */
export async function brokenModels(directory: string): Promise<BrokenModel[]> {
  await mkdir(directory, { recursive: true });
  const good = await readFile(await cachedModel(BASE));
  const written: BrokenModel[] = [];
  for (const [name, { why, damage }] of Object.entries(DAMAGES)) {
    const path = join(directory, `${name}.gguf`);
    await writeFile(path, damage(good));
    written.push({ name, path, why });
  }
  for (const [name, { why, change }] of Object.entries(DEFECTS)) {
    const path = join(directory, `${name}.gguf`);
    writeGguf(path, change(defineModel(BASE)));
    written.push({ name, path, why });
  }
  return written;
}

function changed(change: (bytes: Buffer) => void): (bytes: Buffer) => Buffer {
  return (bytes) => {
    const copy = Buffer.from(bytes);
    change(copy);
    return copy;
  };
}

function huge(position: (bytes: Buffer) => number): (bytes: Buffer) => Buffer {
  return changed((bytes) => bytes.writeBigUInt64LE(HUGE, position(bytes)));
}

/** Where the first thing called this ends. */
function after(bytes: Buffer, name: string): number {
  const start = bytes.indexOf(name);
  if (start === -1) throw new Error(`There is no ${name}.`);
  return start + name.length;
}

function replacing([key, value]: Entry): (model: ModelFile) => ModelFile {
  return ({ metadata, tensors }) => ({
    metadata: metadata.map((entry) => (entry[0] === key ? [key, value] : entry)),
    tensors,
  });
}

function withoutNumbers({ metadata, tensors }: ModelFile): ModelFile {
  return {
    metadata,
    tensors: tensors.map((tensor) =>
      tensor.name === "blk.0.attn_q.weight"
        ? fixed(tensor.name, tensor.shape, tensor.type, new Float32Array(valuesOf(tensor)).fill(Number.NaN))
        : tensor,
    ),
  };
}
