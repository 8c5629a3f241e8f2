import type { Instance } from "../../types.ts";
import type { ListedFile, WasmExport, WasmValue } from "./host/protocol.ts";

export type { ListedFile, WasmExport, WasmValue } from "./host/protocol.ts";

/**
 * Files that a module may use, given by whoever loads it. Paths are relative with `/`, without `.`, `..` and empty
 * parts: checked before anything here is called. What is thrown, the module sees as an error number.
 */
export interface WasmFiles {
  /** Undefined when there is no such file. */
  read(path: string): Promise<Uint8Array | undefined>;
  /** Entries of a directory, "" being the topmost; undefined when there is none. */
  list(path: string): Promise<readonly ListedFile[] | undefined>;
  /** Without it, all is read-only. */
  write?(path: string, bytes: Uint8Array): Promise<void>;
  /** Size of the largest file, at most 16 MiB. */
  readonly maxBytes: number;
}

export interface WasmSpec {
  /** Modules of one domain share a process, those of two never do: one user and project, as an opaque text. */
  domain: string;
  /** The module, a core module in binary. */
  bytes: Uint8Array;
  /** Limit of its memory, bytes: 64 MiB without it; rounded down to pages of 64 KiB. */
  memoryBytes?: number;
  files?: WasmFiles;
  /** What WASI gives it: arguments (the first is the program's name), environment, standard input. */
  args?: readonly string[];
  env?: Readonly<Record<string, string>>;
  stdin?: Uint8Array;
  /** For what it runs when it is loaded: its start function and `_initialize`. */
  fuel?: number;
  timeoutMs?: number;
  signal?: AbortSignal;
}

export interface WasmCallOptions {
  /** Units, about one an instruction; what is left over is lost. */
  fuel?: number;
  timeoutMs?: number;
  signal?: AbortSignal;
}

export interface WasmCallResult {
  results: WasmValue[];
  fuelUsed: number;
  /** Text of this call, at most 1 MiB each; broken UTF-8 is replaced. Files are the place for bytes. */
  stdout: string;
  stderr: string;
  stdoutTruncated: boolean;
  stderrTruncated: boolean;
  memoryBytes: number;
  /** Where the module called `proc_exit`. */
  exitCode?: number;
}

/** One loaded module with its memory. */
export interface WasmInstance extends Instance {
  readonly domain: string;
  readonly exports: readonly WasmExport[];
  /** Whether its bytes had been compiled before. */
  readonly cached: boolean;
  /** What its memory has now, and may have, bytes. */
  readonly memoryBytes: number;
  readonly memoryLimitBytes: number;
  /** False once it has ended: closed, out of fuel, out of time, or with its process. */
  readonly alive: boolean;
  /**
   * Call an exported function; calls of one instance run one after the other. After a trap the instance can be
   * called again; out of fuel or time it is dead. Throws AppError InvalidParams (the function, an argument),
   * WasmTrap (`details.kind`), OutOfFuel (`details.fuel`, `details.used`), Timeout, Cancelled, PayloadTooLarge for
   * a flood of output, QuotaExceeded when too many calls wait, Unavailable when it is dead. `details.stdout` and
   * `details.stderr` hold what it wrote.
   */
  call(name: string, args?: readonly WasmValue[], options?: WasmCallOptions): Promise<WasmCallResult>;
  /**
   * Set how large its memory may grow; growing further then gives -1 inside. Throws AppError InvalidParams below what
   * it uses already, QuotaExceeded beyond what the domain has left.
   */
  setMemoryLimit(bytes: number): Promise<void>;
  close(): Promise<void>;
}
