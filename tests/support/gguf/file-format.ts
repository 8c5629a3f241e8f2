import { createHash } from "node:crypto";
import { closeSync, openSync, writeSync } from "node:fs";
import { LAYOUTS } from "./tensor-types.ts";
import { type Tensor, valuesOf } from "./tensors.ts";

/** Writing the GGUF format, version 3: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md */

const MAGIC = "GGUF";
const VERSION = 3;
/** Where each tensor's data begins, unless the metadata says otherwise. */
const ALIGNMENT = 32;

/** A value of the metadata, ready to be written. */
export interface Value {
  readonly type: number;
  readonly bytes: Buffer;
}

export type Entry = readonly [key: string, value: Value];

export interface ModelFile {
  metadata: readonly Entry[];
  tensors: readonly Tensor[];
}

export interface Written {
  bytes: number;
  sha256: string;
  parameters: number;
}

const U32 = 4;
const I32 = 5;
const F32 = 6;
const BOOLEAN = 7;
const TEXT = 8;
const LIST = 9;

export function u32(value: number): Value {
  return { type: U32, bytes: u32Bytes(value) };
}

export function f32(value: number): Value {
  return { type: F32, bytes: Buffer.from(Float32Array.of(value).buffer) };
}

export function boolean(value: boolean): Value {
  return { type: BOOLEAN, bytes: Buffer.of(value ? 1 : 0) };
}

export function text(value: string): Value {
  return { type: TEXT, bytes: textBytes(value) };
}

export function i32s(values: readonly number[]): Value {
  return list(I32, values.length, Buffer.from(Int32Array.from(values).buffer));
}

export function f32s(values: readonly number[]): Value {
  return list(F32, values.length, Buffer.from(Float32Array.from(values).buffer));
}

export function texts(values: readonly string[]): Value {
  return list(TEXT, values.length, Buffer.concat(values.map(textBytes)));
}

function list(element: number, length: number, content: Buffer): Value {
  return { type: LIST, bytes: Buffer.concat([u32Bytes(element), u64Bytes(length), content]) };
}

/**
 * Write a model; a tensor's data is made piece by piece, so that gigabytes need no memory.
 * @throws Error when a tensor's data does not have the size its shape says; anything of the file system.
 */
export function writeGguf(path: string, { metadata, tensors }: ModelFile): Written {
  const hash = createHash("sha256");
  const file = openSync(path, "w");
  let bytes = 0;
  const put = (piece: Buffer) => {
    for (let done = 0; done < piece.length; ) done += writeSync(file, piece, done);
    hash.update(piece);
    bytes += piece.length;
  };
  const pad = () => put(Buffer.alloc(padding(bytes)));
  try {
    put(header(metadata, tensors));
    pad();
    for (const tensor of tensors) {
      const start = bytes;
      for (const piece of tensor.pieces()) put(piece);
      if (bytes - start !== bytesOf(tensor))
        throw new Error(`${tensor.name}: ${bytes - start} bytes written`);
      pad();
    }
  } finally {
    closeSync(file);
  }
  return { bytes, sha256: hash.digest("hex"), parameters: parametersOf(tensors) };
}

/** Numbers a model consists of. */
export function parametersOf(tensors: readonly Tensor[]): number {
  return tensors.reduce((sum, tensor) => sum + valuesOf(tensor), 0);
}

function header(metadata: readonly Entry[], tensors: readonly Tensor[]): Buffer {
  const parts = [Buffer.from(MAGIC), u32Bytes(VERSION), u64Bytes(tensors.length), u64Bytes(metadata.length)];
  for (const [key, { type, bytes }] of metadata) parts.push(textBytes(key), u32Bytes(type), bytes);
  let offset = 0;
  for (const tensor of tensors) {
    parts.push(textBytes(tensor.name), u32Bytes(tensor.shape.length), ...tensor.shape.map(u64Bytes));
    parts.push(u32Bytes(LAYOUTS[tensor.type].id), u64Bytes(offset));
    const size = bytesOf(tensor);
    offset += size + padding(size);
  }
  return Buffer.concat(parts);
}

function bytesOf(tensor: Tensor): number {
  const { blockLength, blockBytes } = LAYOUTS[tensor.type];
  if ((tensor.shape[0] ?? 0) % blockLength !== 0) {
    throw new Error(`${tensor.name}: ${tensor.type} wants rows of whole blocks of ${blockLength}`);
  }
  return (valuesOf(tensor) / blockLength) * blockBytes;
}

function padding(bytes: number): number {
  return (ALIGNMENT - (bytes % ALIGNMENT)) % ALIGNMENT;
}

function u32Bytes(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function u64Bytes(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function textBytes(value: string): Buffer {
  const bytes = Buffer.from(value, "utf8");
  return Buffer.concat([u64Bytes(bytes.length), bytes]);
}
