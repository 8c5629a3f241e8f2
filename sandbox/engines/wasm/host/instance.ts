import type { MessagePort } from "node:worker_threads";
import { WASIProcExit } from "@bjorn3/browser_wasi_shim";
import { InvalidModuleError } from "../meter/invalid-module.ts";
import { STACK_BUDGET } from "../meter/limits.ts";
import { FileClient } from "./file-client.ts";
import { CDS_BYTES, cdsFunctions } from "./host-functions.ts";
import { openFiles, ProjectDirectory } from "./project-directory.ts";
import type {
  CallOrder,
  Compiled,
  FromWorker,
  HostError,
  LoadOrder,
  Outcome,
  WasmExport,
} from "./protocol.ts";
import { InputStream, OutputStream } from "./streams.ts";
import { describe, trap } from "./traps.ts";
import { decodeValue, encodeValue } from "./values.ts";
import { type HostFunction, wasiFunctions } from "./wasi.ts";

/** Fuel for one call of a host function, besides a unit for eight bytes. */
const HOST_CALL_FUEL = 100;
const BYTES_PER_FUEL = 8;
/** Fuel for a call from outside. */
const OUTER_CALL_FUEL = 15;
const PROJECT = "/project";

/** A host function took the last fuel. */
class OutOfFuelSignal extends Error {}

export interface InstanceInput {
  order: LoadOrder;
  compiled: Compiled;
  stdin: Uint8Array;
  flag: Int32Array;
  files: MessagePort;
  send: (message: FromWorker) => void;
}

type Called = Pick<Outcome, "results" | "exitCode" | "error" | "dead">;

/** One module at work in its thread. */
export class ModuleInstance {
  readonly #exports: WebAssembly.Exports;
  readonly #known: Map<string, WasmExport>;
  readonly #compiled: Compiled;
  readonly #stdout: OutputStream;
  readonly #stderr: OutputStream;
  readonly #fuel: WebAssembly.Global<"i64">;
  readonly #stack: WebAssembly.Global<"i64">;
  readonly #pages: WebAssembly.Global<"i64">;
  readonly #flush: () => void;

  /** Throws what instantiating throws, and InvalidModuleError for imports that are not offered. */
  constructor({ order, compiled, stdin, flag, files, send }: InstanceInput) {
    this.#compiled = compiled;
    this.#known = new Map(compiled.exports.map((each) => [each.name, each]));
    this.#stdout = new OutputStream(order.outputBytes);
    this.#stderr = new OutputStream(order.outputBytes);
    const { fileBytes: maxBytes, writable } = order;
    const client = new FileClient({ port: files, flag, send, maxBytes, writable });
    const open = openFiles(client);
    this.#flush = () => {
      for (const file of open.changed) file.flush();
    };
    const memory = () => this.#memory();
    const charge = (bytes: number) => this.#charge(bytes);
    const fds = [new InputStream(stdin), this.#stdout, this.#stderr];
    const wasi = wasiFunctions({
      args: order.args,
      env: order.env,
      fds: maxBytes === 0 ? fds : [...fds, new ProjectDirectory(open, "", PROJECT)],
      memory,
      charge,
    });
    const offered = { wasi_snapshot_preview1: wasi, cds: paid(cdsFunctions(client, memory), charge) };
    const instance = new WebAssembly.Instance(compiled.module, importsOf(compiled, offered));
    this.#exports = instance.exports;
    const { hidden } = compiled;
    this.#fuel = instance.exports[hidden.fuel] as WebAssembly.Global<"i64">;
    this.#stack = instance.exports[hidden.stack] as WebAssembly.Global<"i64">;
    this.#pages = instance.exports[hidden.pages] as WebAssembly.Global<"i64">;
    this.setMemoryPages(order.memoryPages);
  }

  setMemoryPages(pages: number): void {
    this.#pages.value = BigInt(pages);
  }

  get memoryBytes(): number {
    return (
      Object.values(this.#exports).find((each) => each instanceof WebAssembly.Memory)?.buffer.byteLength ?? 0
    );
  }

  /** What a module does before it is called: its start function, and `_initialize` of one that has no `_start`. */
  begin(fuel: number): { outcome: Outcome; output: Uint8Array } {
    const { start } = this.#compiled.hidden;
    const initialize = this.#known.get("_start") === undefined ? this.#known.get("_initialize") : undefined;
    const runs = initialize?.kind === "function" && initialize.params.length === 0;
    return this.#account(fuel, () => {
      if (start !== null) this.#function(start)();
      if (runs) this.#function("_initialize")();
      return [];
    });
  }

  /** Call an exported function. Never throws: what goes wrong stands in the outcome. */
  call({ name, args, fuel }: CallOrder): { outcome: Outcome; output: Uint8Array } {
    return this.#account(fuel, () => {
      const known = this.#known.get(name);
      const values = args.map((value, index) => decodeValue(value, known?.params[index] ?? "externref"));
      const result: unknown = this.#function(name)(...values);
      if (known === undefined || known.results.length === 0) return [];
      return known.results.length === 1 ? [result] : (result as unknown[]);
    });
  }

  #function(name: string): (...args: (number | bigint)[]) => unknown {
    return this.#exports[name] as (...args: (number | bigint)[]) => unknown;
  }

  #account(fuel: number, act: () => readonly unknown[]): { outcome: Outcome; output: Uint8Array } {
    this.#fuel.value = BigInt(fuel - OUTER_CALL_FUEL);
    this.#stack.value = BigInt(STACK_BUDGET);
    const called = this.#run(act);
    const left = this.#fuel.value;
    const fuelUsed = fuel - Number(left);
    if (left < 0n && called.error?.code !== "PayloadTooLarge") {
      called.error = {
        code: "OutOfFuel",
        message: `The module used up its ${fuel} units of fuel.`,
        details: { fuel, used: fuelUsed },
      };
      called.results = [];
      called.dead = true;
    } else if (called.error?.details.kind === "unreachable" && this.#stack.value < 0n) {
      called.error = trap("stack overflow");
    }
    const stdout = this.#stdout.take();
    const stderr = this.#stderr.take();
    const output = new Uint8Array(stdout.bytes.length + stderr.bytes.length);
    output.set(stdout.bytes);
    output.set(stderr.bytes, stdout.bytes.length);
    const outcome: Outcome = {
      ...called,
      fuelUsed,
      memoryBytes: this.memoryBytes,
      stdoutBytes: stdout.bytes.length,
      stdoutTruncated: stdout.truncated,
      stderrTruncated: stderr.truncated,
    };
    return { outcome, output };
  }

  #run(act: () => readonly unknown[]): Called {
    let error: HostError | null = null;
    let exitCode: number | null = null;
    let results: readonly unknown[] = [];
    try {
      results = act();
    } catch (thrown) {
      if (thrown instanceof WASIProcExit) exitCode = thrown.code;
      else error = describe(thrown);
    }
    try {
      this.#flush();
    } catch {
      error ??= { code: "WasmTrap", message: "A file could not be written back.", details: { kind: "file" } };
    }
    return { results: results.map(encodeValue), exitCode, error, dead: error?.code === "PayloadTooLarge" };
  }

  #memory(): Uint8Array<ArrayBuffer> {
    const { memory } = this.#exports;
    if (!(memory instanceof WebAssembly.Memory)) throw new TypeError("the module exports no memory");
    return new Uint8Array(memory.buffer as ArrayBuffer);
  }

  #charge(bytes: number): void {
    const left = this.#fuel.value - BigInt(HOST_CALL_FUEL + Math.floor(bytes / BYTES_PER_FUEL));
    this.#fuel.value = left;
    if (left < 0n) throw new OutOfFuelSignal();
  }
}

function paid(
  functions: Record<string, (...args: number[]) => number>,
  charge: (bytes: number) => void,
): Record<string, HostFunction> {
  return Object.fromEntries(
    Object.entries(functions).map(([name, act]) => [
      name,
      (...given: (number | bigint)[]) => {
        const args = given.map((value) => Number(value) >>> 0);
        charge(CDS_BYTES[name]?.(...args) ?? 0);
        return act(...args);
      },
    ]),
  );
}

function importsOf(
  compiled: Compiled,
  offered: Readonly<Record<string, Record<string, HostFunction>>>,
): WebAssembly.Imports {
  const imports = new Map<string, Map<string, HostFunction>>();
  for (const { module, name } of compiled.imports) {
    const functions = Object.hasOwn(offered, module) ? offered[module] : undefined;
    const found = functions !== undefined && Object.hasOwn(functions, name) ? functions[name] : undefined;
    if (found === undefined) {
      throw new InvalidModuleError(
        `The module imports ${JSON.stringify(`${module}.${name}`)}; there are wasi_snapshot_preview1 and cds.`,
      );
    }
    const group = imports.get(module) ?? new Map<string, HostFunction>();
    imports.set(module, group.set(name, found));
  }
  return Object.fromEntries([...imports].map(([module, group]) => [module, Object.fromEntries(group)]));
}
