/** What the server and a module host say to each other, and the host's threads among themselves. */

export type WasmValueType = "i32" | "i64" | "f32" | "f64" | "v128" | "funcref" | "externref";

/** Over JSON: i64 as decimal digits; NaN, Infinity, -Infinity and -0 by their names. */
export type WasmValue = number | string;

export interface WasmExport {
  name: string;
  kind: "function" | "table" | "memory" | "global";
  /** Empty but for functions. */
  params: WasmValueType[];
  results: WasmValueType[];
}

export type HostErrorCode =
  | "InvalidModule"
  | "InvalidParams"
  | "OutOfFuel"
  | "PayloadTooLarge"
  | "Timeout"
  | "Cancelled"
  | "Unavailable"
  | "WasmTrap";

export interface HostError {
  code: HostErrorCode;
  message: string;
  details: Record<string, unknown>;
}

/** What a load or a call leaves behind, whether it succeeded or not. */
export interface Outcome {
  results: WasmValue[];
  fuelUsed: number;
  memoryBytes: number;
  exitCode: number | null;
  /** Bytes of standard output in the payload; those of standard error follow. */
  stdoutBytes: number;
  stdoutTruncated: boolean;
  stderrTruncated: boolean;
  error: HostError | null;
  /** The instance can do nothing more. */
  dead: boolean;
}

/** Nothing came of it, and the instance is dead. */
export function failedOutcome(error: HostError | null): Outcome {
  return {
    results: [],
    fuelUsed: 0,
    memoryBytes: 0,
    exitCode: null,
    stdoutBytes: 0,
    stdoutTruncated: false,
    stderrTruncated: false,
    error,
    dead: true,
  };
}

export interface LoadOrder {
  type: "load";
  id: number;
  instance: string;
  memoryPages: number;
  fuel: number;
  timeoutMs: number;
  args: string[];
  env: string[];
  /** Whether the caller gave files, and how large one may be; 0: none. */
  fileBytes: number;
  writable: boolean;
  outputBytes: number;
  /** Bytes of the module in the payload; what follows is standard input. */
  moduleBytes: number;
}

export interface CallOrder {
  type: "call";
  id: number;
  instance: string;
  name: string;
  args: WasmValue[];
  fuel: number;
  timeoutMs: number;
}

export type ToHost =
  | LoadOrder
  | CallOrder
  | { type: "limit"; id: number; instance: string; memoryPages: number }
  /** End whatever the instance does, and the instance. */
  | { type: "cancel"; instance: string }
  /** Answer to a request for a file: an error number of WASI, or 0 and the payload. */
  | { type: "file"; id: number; errno: number };

export interface Loaded {
  exports: WasmExport[];
  cached: boolean;
}

export type FileOperation = "read" | "list" | "write";

export type FromHost =
  | { type: "ready" }
  | { type: "done"; id: number; outcome: Outcome; loaded?: Loaded }
  | { type: "file"; id: number; instance: string; operation: FileOperation; path: string };

/** One entry of a directory; the answer to `list` is an array of them, in JSON. */
export interface ListedFile {
  name: string;
  directory: boolean;
  size: number;
}

/** A compiled module, and what of it the rewriting hides. */
export interface Compiled {
  module: WebAssembly.Module;
  exports: WasmExport[];
  imports: { module: string; name: string }[];
  hidden: { fuel: string; stack: string; pages: string; start: string | null };
  minPages: number;
  /** Size of the original, for the cache. */
  bytes: number;
}

export type ToWorker =
  | {
      kind: "load";
      order: LoadOrder;
      code: { bytes: Uint8Array } | { compiled: Compiled };
      stdin: Uint8Array;
      /** For waiting until an answer lies in the port. */
      flag: Int32Array;
      files: import("node:worker_threads").MessagePort;
    }
  | { kind: "call"; order: CallOrder }
  | { kind: "limit"; id: number; memoryPages: number };

export type FromWorker =
  | { kind: "compiled"; compiled: Compiled }
  | { kind: "done"; id: number; outcome: Outcome; output: Uint8Array; exports?: WasmExport[] }
  | { kind: "file"; operation: FileOperation; path: string; bytes: Uint8Array };
