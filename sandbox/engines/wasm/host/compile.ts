import { InvalidModuleError } from "../meter/invalid-module.ts";
import { meterModule } from "../meter/meter.ts";
import { functionType, type Shape } from "../meter/shape.ts";
import type { Compiled, WasmExport, WasmValueType } from "./protocol.ts";

const TYPES = new Map<number, WasmValueType>([
  [0x7f, "i32"],
  [0x7e, "i64"],
  [0x7d, "f32"],
  [0x7c, "f64"],
  [0x7b, "v128"],
  [0x70, "funcref"],
  [0x6f, "externref"],
]);

const names = (types: readonly number[]): WasmValueType[] =>
  types.map((type) => TYPES.get(type) ?? "externref");

function exportsOf(shape: Shape): WasmExport[] {
  return shape.exports.map(({ name, kind, index }) => {
    const type = kind === "function" ? functionType(shape, index) : undefined;
    return { name, kind, params: names(type?.params ?? []), results: names(type?.results ?? []) };
  });
}

/** Rewrite and compile a module. Throws InvalidModuleError. */
export function compile(bytes: Uint8Array): Compiled {
  const metered = meterModule(bytes);
  const { shape, hidden } = metered;
  let module: WebAssembly.Module;
  try {
    module = new WebAssembly.Module(metered.bytes);
  } catch (error) {
    if (!(error instanceof WebAssembly.CompileError)) throw error;
    throw new InvalidModuleError(
      `The module is broken: ${error.message.replace(/^WebAssembly\.Module\(\): /, "")}.`,
    );
  }
  return {
    module,
    exports: exportsOf(shape),
    imports: shape.imports.map(({ module: from, name }) => ({ module: from, name })),
    hidden,
    minPages: shape.memory?.minPages ?? 0,
    bytes: bytes.length,
  };
}
