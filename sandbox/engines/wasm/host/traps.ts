import { InvalidModuleError } from "../meter/invalid-module.ts";
import type { HostError } from "./protocol.ts";
import { OutputFloodError } from "./streams.ts";

/** What a trap is called, by V8's words for it. */
const KINDS: readonly (readonly [RegExp, string])[] = [
  [/unreachable/, "unreachable"],
  [/memory access|data segment|offset is out of bounds|Invalid typed array/i, "memory out of bounds"],
  [/divide by zero|remainder by zero|division by zero/, "divide by zero"],
  [/divide result unrepresentable/, "integer overflow"],
  [/float unrepresentable/, "invalid conversion to integer"],
  [/null function|signature mismatch|indirect call/, "indirect call"],
  [/table|element segment|array index/, "table out of bounds"],
  [/call stack/, "stack overflow"],
];

export function trap(kind: string): HostError {
  return { code: "WasmTrap", message: `The module trapped: ${kind}.`, details: { kind } };
}

/** What was thrown out of a module, for the caller; "exit" and fuel have been dealt with before. */
export function describe(error: unknown): HostError {
  if (error instanceof OutputFloodError) {
    return {
      code: "PayloadTooLarge",
      message: "The module has written far more output than is kept.",
      details: { hint: "Write results to files, or let it write less." },
    };
  }
  if (error instanceof InvalidModuleError) {
    const { message, proposal } = error;
    return { code: "InvalidModule", message, details: proposal === undefined ? {} : { proposal } };
  }
  if (error instanceof WebAssembly.LinkError) {
    return { code: "InvalidModule", message: `The module does not fit: ${error.message}.`, details: {} };
  }
  const message = error instanceof Error ? error.message : String(error);
  const kind = KINDS.find(([pattern]) => pattern.test(message))?.[1];
  return trap(kind ?? "host function");
}
