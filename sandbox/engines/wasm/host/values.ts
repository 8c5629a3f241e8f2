import type { WasmValue, WasmValueType } from "./protocol.ts";

/** Thrown for a value that is none of its type; `message` begins with what it should be. */
export class ValueError extends Error {}

const NAMED = new Map<string, number>([
  ["NaN", Number.NaN],
  ["Infinity", Number.POSITIVE_INFINITY],
  ["-Infinity", Number.NEGATIVE_INFINITY],
  ["-0", -0],
]);
const MAX_F32 = 3.4028235677973366e38;
const MAX_DIGITS = 21;

function float(value: unknown, type: "f32" | "f64"): number {
  const named = typeof value === "string" ? NAMED.get(value) : undefined;
  if (named !== undefined) return named;
  if (typeof value !== "number" || !Number.isFinite(value)) {
    throw new ValueError(`${type} is a number, or "NaN", "Infinity", "-Infinity" or "-0"`);
  }
  if (type === "f32" && Math.abs(value) >= MAX_F32) throw new ValueError("f32 goes up to about 3.4e38");
  return value;
}

function integer64(value: unknown): bigint {
  if (typeof value !== "string" || value.length > MAX_DIGITS || !/^-?\d+$/.test(value)) {
    throw new ValueError("i64 is a text of decimal digits");
  }
  const number = BigInt(value);
  if (number < -(2n ** 63n) || number >= 2n ** 64n)
    throw new ValueError("i64 lies between -2^63 and 2^64 - 1");
  return number;
}

/** A value as it comes over JSON, for WebAssembly. Throws ValueError. */
export function decodeValue(value: unknown, type: WasmValueType): number | bigint {
  switch (type) {
    case "i32":
      if (typeof value !== "number" || !Number.isInteger(value) || value < -(2 ** 31) || value >= 2 ** 32) {
        throw new ValueError("i32 is a whole number between -2^31 and 2^32 - 1");
      }
      return value | 0;
    case "i64":
      return integer64(value);
    case "f32":
    case "f64":
      return float(value, type);
    default:
      throw new ValueError(`${type} cannot be given or taken from outside`);
  }
}

/** The other way round; numbers are signed. */
export function encodeValue(value: unknown): WasmValue {
  if (typeof value === "bigint") return value.toString();
  if (typeof value !== "number") return String(value);
  if (Object.is(value, -0)) return "-0";
  return Number.isFinite(value) ? value : String(value);
}
