import { AppError } from "#schemas";
import type { Availability, SandboxStats } from "../../types.ts";

/** What user code is written for; every machine has both interpreters, this one runs what is given as `code`. */
export type MicroImageName = "node" | "python";

/** One virtual machine's size. */
export interface MachineSpec {
  image: MicroImageName;
  /** Memory of the machine: its kernel, its programs and its files. */
  memoryBytes: number;
  cpus: number;
  /** Room for what is written; it lies in the machine's memory, so never more than that. */
  diskBytes: number;
}

export interface GuestFile {
  /** Relative to `/work`, or absolute below it. */
  path: string;
  data: Buffer;
}

export interface GuestCommand {
  argv: readonly string[];
  env: Readonly<Record<string, string>>;
  /** Written to `/work` before the program starts. */
  files: readonly GuestFile[];
  /** All of its standard input; without it there is none. */
  stdin?: Buffer;
  timeoutMs: number;
  /** Bytes of stdout and stderr together that are kept; the rest is dropped and told as `truncated`. */
  outputBytes: number;
  /** Processes and threads at once. */
  processes: number;
  signal?: AbortSignal;
  onOutput?: (stream: "stdout" | "stderr", data: Buffer) => void;
}

export interface GuestResult {
  stdout: Buffer;
  stderr: Buffer;
  /** null when a signal ended it. */
  exitCode: number | null;
  /** e.g. `SIGKILL`. */
  signal?: string;
  truncated: boolean;
  /** The limit that probably ended it. */
  limit?: "memory" | "processes";
}

/** Why a machine is no more; by then nothing of it is left on the host. */
export interface VmExit {
  /** `stopped`: by its owner; `idle`: nobody used it; `failed`: by itself, see `error`. */
  reason: "stopped" | "idle" | "failed";
  error?: AppError;
}

/** A machine that runs, with entropy and a clock of its own, and in which nothing of anybody's has run yet. */
export interface DriverVm {
  readonly exited: Promise<VmExit>;
  /**
   * Run one program to its end. Throws AppError Timeout or Cancelled (then the program has been ended and the machine
   * lives on), InvalidParams for what cannot be started, Unavailable when the machine has ended.
   */
  execute(command: GuestCommand): Promise<GuestResult>;
  /** Answers within a moment, or the machine is ended: whether it still works. */
  ping(): Promise<boolean>;
  /**
   * Write memory and devices into the empty directory `dir`; answers the bytes used. Programs of the machine end, its
   * files stay, and it goes on. Throws AppError QuotaExceeded above `maxBytes`, InvalidParams where a driver cannot.
   */
  snapshot(dir: string, maxBytes: number): Promise<number>;
  stats(): Promise<SandboxStats>;
  /** End it. Resolves when nothing is left of it on the host. */
  stop(): Promise<void>;
}

/** A way to have virtual machines: one folder each. */
export interface MicroDriver {
  readonly name: "microsandbox" | "qemu";
  /** Bytes of host memory that a machine may take besides its own. */
  readonly overheadBytes: number;
  /** Found out by booting one. Never throws. */
  probe(): Promise<Availability>;
  start(spec: MachineSpec, signal?: AbortSignal): Promise<DriverVm>;
  /** A new machine from what `snapshot` wrote. */
  restore(spec: MachineSpec, dir: string, signal?: AbortSignal): Promise<DriverVm>;
  /** What a snapshot is bound to besides its size (kernel, emulator...): another one's cannot be restored. */
  fingerprint(): Promise<string>;
  close(): Promise<void>;
}

/** Whoever asked for a machine does not want it any more. */
export const startCancelled = () =>
  new AppError("Cancelled", "The start of a virtual machine was cancelled.");
