import { RandomBytes } from "./random-bytes.ts";
import { encode, halfBits, LAYOUTS, type TensorType } from "./tensor-types.ts";

/** One array of a model. */
export interface Tensor {
  readonly name: string;
  /** Contiguous dimension first, as the file has it: a matrix is [inputs, outputs]. */
  readonly shape: readonly number[];
  readonly type: TensorType;
  /** Its data in the file, in order. */
  pieces(): Iterable<Buffer>;
}

/** Values per piece; a multiple of every block. */
const PIECE_VALUES = 1 << 18;
const PIECE_BLOCKS = 1 << 16;
/** Standard deviation of the codes of a block whose bits are random: uniform over 16, or 256, whole numbers. */
const CODE_DEVIATION = { q4_0: 4.6, q8_0: 73.9 };

export function valuesOf({ shape }: Pick<Tensor, "shape">): number {
  return shape.reduce((product, length) => product * length, 1);
}

/** Scales of a normalisation, all one. */
export function ones(name: string, length: number): Tensor {
  return fixed(name, [length], "f32", new Float32Array(length).fill(1));
}

/** A bias of nothing. */
export function zeros(name: string, length: number): Tensor {
  return fixed(name, [length], "f32", new Float32Array(length));
}

/** Exactly these values, as far as the type has them. */
export function fixed(
  name: string,
  shape: readonly number[],
  type: TensorType,
  values: Float32Array,
): Tensor {
  return { name, shape, type, pieces: () => [encode(values, type)] };
}

/** Random values of mean (nearly) zero, the same for the same seed and name. */
export function random(
  seed: string,
  { name, shape, type, deviation }: Pick<Tensor, "name" | "shape" | "type"> & { deviation: number },
): Tensor {
  const count = valuesOf({ shape });
  const source = () => new RandomBytes(`${seed}:${name}`);
  const pieces =
    type === "q4_0" || type === "q8_0"
      ? () => randomBlocks(source(), type, count, deviation)
      : () => randomValues(source(), type, count, deviation);
  return { name, shape, type, pieces };
}

/** Random bits under one scale: a gigabyte in a second, which encoding numbers one by one would take a minute for. */
function* randomBlocks(
  source: RandomBytes,
  type: "q4_0" | "q8_0",
  count: number,
  deviation: number,
): Iterable<Buffer> {
  const { blockLength, blockBytes } = LAYOUTS[type];
  const scale = halfBits(deviation / CODE_DEVIATION[type]);
  for (let left = count / blockLength; left > 0; left -= PIECE_BLOCKS) {
    const blocks = Math.min(left, PIECE_BLOCKS);
    const piece = source.take(blocks * blockBytes);
    for (let block = 0; block < blocks; block++) piece.writeUInt16LE(scale, block * blockBytes);
    yield piece;
  }
}

function* randomValues(
  source: RandomBytes,
  type: "f32" | "f16",
  count: number,
  deviation: number,
): Iterable<Buffer> {
  for (let left = count; left > 0; left -= PIECE_VALUES) {
    const values = new Float32Array(Math.min(left, PIECE_VALUES));
    for (let index = 0; index < values.length; index++) values[index] = source.normal() * deviation;
    yield encode(values, type);
  }
}
