import type { Socket } from "node:net";
import type { Readable } from "node:stream";
import type { Logger } from "pino";
import type { Slot } from "./slots.ts";

export type SandboxLog = Pick<Logger, "debug" | "info" | "warn" | "error">;

/** What one sandbox may use. Bytes and counts; `cpus` in cores. */
export interface SandboxLimits {
  /** Memory of all processes together, temporary files included. */
  memoryBytes: number;
  /** Processes and threads at once. */
  processes: number;
  /** Size of any one file it writes. */
  fileBytes: number;
  /** Size of `/tmp`, and again of `/dev/shm`. */
  tmpBytes: number;
  /** Ceiling on CPU time; without it a sandbox shares what is free with the others. */
  cpus?: number;
}

export interface SandboxMount {
  /** Absolute path on the host. One that is writable inside must lie in the slot's directory. */
  source: string;
  /** Absolute path inside. Never below another mount: see `engines/run/policy.ts`. */
  target: string;
  mode: "ro" | "rw";
}

/** A way out of the network-less sandbox: loopback `port` inside leads to a unix socket of the host. */
export interface SandboxBridge {
  socketPath: string;
  port: number;
}

export interface SandboxSpec {
  /** For logs and the names of control groups: letters, digits and `-`. */
  name: string;
  /** The program (found on the inside's PATH) and its arguments. */
  argv: readonly string[];
  /** The whole environment, besides defaults for PATH, HOME, TMPDIR, USER, LOGNAME and LANG. */
  env: Readonly<Record<string, string>>;
  /** Working directory inside. */
  cwd: string;
  mounts: readonly SandboxMount[];
  limits: SandboxLimits;
  slot: Slot;
  /**
   * For whom it is: any name, the same for all sandboxes of one user. On a busy machine users are fair to each other,
   * see `limits/turns.ts`. Without it, whoever has the slot.
   */
  owner?: string;
  bridge?: SandboxBridge;
}

export type LimitName = "memory" | "processes" | "file";

/** How a sandbox ended. By then no process of it is left. */
export interface SandboxExit {
  /** Exit code; 128 + n when the program died of signal n; null when the sandbox itself was killed. */
  code: number | null;
  /** The signal that ended the sandbox as a whole. */
  signal: NodeJS.Signals | null;
  /** The limit that ended it, where one did. */
  limit?: LimitName;
}

export interface SandboxStats {
  memoryBytes: number;
  cpuMs: number;
  processes: number;
}

/** One process in a sandbox. */
export interface ProcessEntry {
  /** Its number inside: what a program there calls it, and what `signalProcess` takes. */
  pid: number;
  /** Its parent's number inside; 0 for the first. */
  ppid: number;
  /** Its number on the host. */
  hostPid: number;
  /** The command line; the program's name in it alone when the process has cleared it. */
  command: string[];
  /** Letter of proc(5): R, S, D, T (stopped)... */
  state: string;
  cpuMs: number;
  memoryBytes: number;
  /** ms since 1970. */
  startedAt: number;
}

/** All processes of one sandbox. */
export interface SandboxTree extends Instance {
  readonly name: string;
  /** The sandbox's first process, as the host counts. */
  readonly pid: number;
  readonly exited: Promise<SandboxExit>;
  /** Stop every process where it is: no CPU until `thaw`. */
  freeze(): Promise<void>;
  thaw(): Promise<void>;
  stats(): Promise<SandboxStats>;
  /** What runs inside, oldest first; not the sandbox's own two (its init, and the bridge). */
  processes(): Promise<ProcessEntry[]>;
  /**
   * Signal one of those. Throws AppError NotFound for any other number: what is not in this sandbox, has ended, or
   * is the sandbox's own.
   */
  signalProcess(pid: number, signal: NodeJS.Signals): Promise<void>;
  /** Signal the program and what shares its process group; answers how many processes that were. */
  signal(signal: NodeJS.Signals): Promise<number>;
  /** Remember which processes belong here. */
  mark(): Promise<void>;
  /** Kill every process that is not known since `mark`; answers how many. */
  sweep(): Promise<number>;
  /** End the whole tree. Resolves when no process is left; AppError Timeout after 10 s. */
  kill(): Promise<void>;
}

/** One running program. Its streams carry the kernel's back-pressure: what nobody reads is not produced. */
export interface SandboxProcess extends SandboxTree {
  readonly stdin: Socket;
  readonly stdout: Socket;
  readonly stderr: Socket;
}

/** In characters. */
export interface TerminalSize {
  cols: number;
  rows: number;
}

/** What a terminal is started with. */
export interface TerminalSpec extends Omit<SandboxSpec, "argv"> {
  /** The program in it; without one, a shell. */
  argv?: readonly string[];
  size: TerminalSize;
}

/**
 * A program, most often a shell, in a terminal of its own, with everything started from it: jobs and daemons
 * included, all end with `kill`. `signal` goes to what has the terminal's input, as Ctrl+C does.
 */
export interface SandboxTerminal extends SandboxTree {
  /** What appears on it, as bytes; ends with the last program. What nobody reads is not produced. */
  readonly output: Readable;
  /** What is typed. Throws AppError QuotaExceeded when 1 MiB waits that no program has taken. */
  write(input: Uint8Array | string): void;
  /** Throws AppError InvalidParams; programs are told by SIGWINCH. */
  resize(size: TerminalSize): void;
}

export type LimitTier = "cgroup2" | "cgroup1" | "systemd" | "rlimits";

export type EngineName = "fs" | "run" | "wasm" | "micro";

/** Whether an engine can work on this machine, found out by trying. */
export interface Availability {
  available: boolean;
  /** How limits are enforced; null when nothing can run, or where the engine keeps its limits by itself. */
  tier: LimitTier | null;
  /** What is missing, or which protection is weaker than it could be. */
  reasons: string[];
  /** What a person can do about it. */
  hint?: string;
}

/** Something an engine has started, and somebody has to end: a program, a directory in use, a module, a machine. */
export interface Instance extends AsyncDisposable {
  /** Unique in this process, e.g. `vm_x7Kq...`. */
  readonly id: string;
  /** ms since 1970. */
  readonly startedAt: number;
}

/**
 * The seam between the sandbox and its ways to isolate: one folder under `engines/` each, one suite of tests for all
 * (`conformance/`). Engines know no users: who may use which instance is their callers' business.
 */
export interface Engine<Spec, Handle extends Instance> {
  readonly name: EngineName;
  /** Found out by trying, once; a failure is tried again at the next call. Never throws. */
  probe(): Promise<Availability>;
  /** Throws AppError InvalidParams for a spec that makes no sense, EngineUnavailable when it cannot work here. */
  start(spec: Spec, signal?: AbortSignal): Promise<Handle>;
  /** What has been started and has not ended, oldest first. */
  list(): readonly Handle[];
  /** End everything; afterwards `start` throws Unavailable. */
  close(): Promise<void>;
}
