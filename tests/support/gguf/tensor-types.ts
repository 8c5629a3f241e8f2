/// <reference lib="es2025.float16" />

/** How a tensor's numbers are stored: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md */
export type TensorType = "f32" | "f16" | "q8_0" | "q4_0";

interface Layout {
  /** `ggml_type` in the file. */
  id: number;
  /** `general.file_type` of a model whose matrices are of this type. */
  fileType: number;
  /** Numbers that share a scale. */
  blockLength: number;
  blockBytes: number;
}

export const LAYOUTS: Readonly<Record<TensorType, Layout>> = {
  f32: { id: 0, fileType: 0, blockLength: 1, blockBytes: 4 },
  f16: { id: 1, fileType: 1, blockLength: 1, blockBytes: 2 },
  q8_0: { id: 8, fileType: 7, blockLength: 32, blockBytes: 34 },
  q4_0: { id: 2, fileType: 2, blockLength: 32, blockBytes: 18 },
};

/** A block begins with its scale, which is of half precision. */
export const SCALE_BYTES = 2;
const Q8_MAX = 127;
/** The largest of a block becomes -8: that side of zero has one value more. */
const Q4_MIN = -8;
const Q4_MAX_CODE = 15;

/** The 16 bits of a number of half precision, rounded to the nearest. */
export function halfBits(value: number): number {
  return new Uint16Array(Float16Array.of(value).buffer)[0] ?? 0;
}

/**
 * The bytes of these numbers in a file.
 * @param values as many as make whole blocks, or it throws.
 */
export function encode(values: Float32Array, type: TensorType): Buffer {
  if (type === "f32") return Buffer.from(values.buffer, values.byteOffset, values.byteLength);
  if (type === "f16") return Buffer.from(Float16Array.from(values).buffer);
  const { blockLength, blockBytes } = LAYOUTS[type];
  if (values.length % blockLength !== 0) throw new Error(`${values.length} values are no whole blocks`);
  const bytes = Buffer.alloc((values.length / blockLength) * blockBytes);
  const writeBlock = type === "q8_0" ? writeQ8 : writeQ4;
  for (let block = 0; block * blockLength < values.length; block++) {
    const from = values.subarray(block * blockLength, (block + 1) * blockLength);
    writeBlock(from, bytes.subarray(block * blockBytes, (block + 1) * blockBytes));
  }
  return bytes;
}

/** One signed byte each. */
function writeQ8(values: Float32Array, block: Buffer): void {
  const scale = Math.abs(largest(values)) / Q8_MAX;
  block.writeUInt16LE(halfBits(scale));
  for (const [index, value] of values.entries()) {
    block.writeInt8(scale === 0 ? 0 : Math.round(value / scale), SCALE_BYTES + index);
  }
}

/** Half a byte each: the first half of the block in the low ones, the second in the high ones. */
function writeQ4(values: Float32Array, block: Buffer): void {
  const scale = largest(values) / Q4_MIN;
  block.writeUInt16LE(halfBits(scale));
  const half = values.length / 2;
  const code = (index: number) => {
    const steps = scale === 0 ? 0 : (values[index] ?? 0) / scale;
    return Math.min(Q4_MAX_CODE, Math.max(0, Math.round(steps) - Q4_MIN));
  };
  for (let index = 0; index < half; index++) {
    block[SCALE_BYTES + index] = code(index) | (code(index + half) << 4);
  }
}

/** The value furthest from zero, with its sign. */
function largest(values: Float32Array): number {
  let found = 0;
  for (const value of values) if (Math.abs(value) > Math.abs(found)) found = value;
  return found;
}
