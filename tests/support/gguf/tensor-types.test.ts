import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { encode, halfBits, LAYOUTS, SCALE_BYTES, type TensorType } from "./tensor-types.ts";

const BLOCK = 32;
const block = fc.array(fc.float({ min: -1000, max: 1000, noNaN: true }), {
  minLength: BLOCK,
  maxLength: BLOCK,
});

/** The value of 16 bits of half precision, by the definition. */
function half(bits: number): number {
  const sign = bits >>> 15 === 0 ? 1 : -1;
  const exponent = (bits >>> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** A block's values and scale as a reader of the format gets them. */
function decode(bytes: Buffer, type: "q8_0" | "q4_0"): { values: number[]; scale: number } {
  const scale = half(bytes.readUInt16LE());
  const codes = bytes.subarray(SCALE_BYTES);
  const values = Array.from({ length: BLOCK }, (_, index) => {
    if (type === "q8_0") return codes.readInt8(index) * scale;
    const byte = codes.readUInt8(index % (BLOCK / 2));
    return ((index < BLOCK / 2 ? byte & 15 : byte >> 4) - 8) * scale;
  });
  return { values, scale: Math.abs(scale) };
}

describe("numbers as a model's file has them", () => {
  it.each([
    [0, 0x0000],
    [1, 0x3c00],
    [-2, 0xc000],
    [65_504, 0x7bff],
    [70_000, 0x7c00],
    [2 ** -24, 0x0001],
    [1 + 2 ** -11, 0x3c00],
    [1 + 3 * 2 ** -11, 0x3c02],
  ])("%d has these bits of half precision", (value, bits) => {
    expect(halfBits(value)).toBe(bits);
  });

  it("not a number stays none", () => {
    expect(half(halfBits(Number.NaN))).toBeNaN();
    expect(half(encode(Float32Array.of(Number.NaN), "f16").readUInt16LE())).toBeNaN();
  });

  it.each(["q8_0", "q4_0"] as const)("%s: each value within a step of what it was", (type) => {
    fc.assert(
      fc.property(block, (given) => {
        const { values, scale } = decode(encode(Float32Array.from(given), type), type);
        // Half a step by rounding, or a whole one at the end that has no code; and the scale is itself rounded.
        const room = (type === "q8_0" ? 0.5 : 1) * scale + 2 ** -10 * 1000;
        for (const [index, value] of values.entries()) {
          expect(Math.abs(value - (given[index] ?? Number.NaN))).toBeLessThanOrEqual(room);
        }
      }),
    );
  });

  it("a block of nothing is nothing", () => {
    for (const type of ["q8_0", "q4_0"] as const) {
      const { values } = decode(encode(new Float32Array(BLOCK), type), type);
      expect(values.every((value) => value === 0)).toBe(true);
    }
  });

  it("what makes no whole block is refused", () => {
    expect(() => encode(new Float32Array(33), "q8_0")).toThrow(/whole blocks/);
  });

  it("has the size its layout says", () => {
    for (const type of Object.keys(LAYOUTS) as TensorType[]) {
      const { blockLength, blockBytes } = LAYOUTS[type];
      expect(encode(new Float32Array(96), type)).toHaveLength((96 / blockLength) * blockBytes);
    }
  });
});
