import { meterModule } from "../engines/wasm/meter/meter.ts";

/** For the stack of a thread of Node's own, which has about 1 MiB. */
const STACK_BYTES = 128 * 1024;

type Global = WebAssembly.Global<"i64">;

/** A rewritten module in this process, for tests of the rewriter: `run` calls it as the engine does. */
export interface Metered {
  run(name: string, args: readonly (number | bigint)[], fuel: number): MeteredRun;
  readonly exports: WebAssembly.Exports;
  readonly hidden: ReturnType<typeof meterModule>["hidden"];
}

interface MeteredRun {
  result: unknown;
  /** What was thrown, as text. */
  trap: string | undefined;
  fuelLeft: number;
  stackLeft: number;
}

export function instantiate(
  bytes: Uint8Array,
  { pages = 1024, imports = {} }: { pages?: number; imports?: WebAssembly.Imports } = {},
): Metered {
  const metered = meterModule(bytes);
  const { hidden } = metered;
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(metered.bytes), imports);
  const fuel = exports[hidden.fuel] as Global;
  const stack = exports[hidden.stack] as Global;
  (exports[hidden.pages] as Global).value = BigInt(pages);
  return {
    exports,
    hidden,
    run(name, args, given) {
      fuel.value = BigInt(given);
      stack.value = BigInt(STACK_BYTES);
      let result: unknown;
      let trap: string | undefined;
      try {
        result = (exports[name] as (...args: readonly (number | bigint)[]) => unknown)(...args);
      } catch (error) {
        trap = String(error);
      }
      return { result, trap, fuelLeft: Number(fuel.value), stackLeft: Number(stack.value) };
    },
  };
}
