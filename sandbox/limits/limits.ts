import type { SandboxLimits, SandboxStats } from "../types.ts";

/** How often a limit was hit so far. */
export interface LimitHits {
  /** Processes the kernel killed for want of memory. */
  memory: number;
  /** Forks it refused. */
  processes: number;
}

/** One sandbox's share of the machine, and the handle by which all its processes can be taken at once. */
export interface LimitGroup {
  /** Files that take the first process's pid before it may fork. */
  readonly join: readonly string[];
  /** Whether the launcher has to watch memory and processes itself. */
  readonly watched: boolean;
  /** Options of prlimit(1) for the program itself, where the count is kept per user namespace. */
  readonly prlimit: readonly string[];
  /** The sandbox's first process is running: what belongs to it is below `rootPid`. */
  attach(rootPid: number): void;
  /** Pids that live, in no order. */
  pids(): Promise<number[]>;
  freeze(): Promise<void>;
  thaw(): Promise<void>;
  /** Somebody waits for what it does next: where it has to wait for others, it does not any longer than need be. */
  rouse(): void;
  /** SIGKILL to all, frozen ones included. */
  killAll(): Promise<void>;
  stats(): Promise<SandboxStats>;
  hits(): Promise<LimitHits>;
  /** Give back what the group holds of the system; its processes are gone by then. Does not wait for the kernel. */
  remove(): Promise<void>;
}

/** For whom a sandbox is, and until when they want it. */
export interface LimitRequest {
  /** Whose credit it takes from: all sandboxes of one owner have one. */
  owner: string;
  /** Ends the wait for a turn to start. */
  signal: AbortSignal;
}

/** One way of enforcing limits: the best that this machine gives us. */
export interface LimitDriver {
  /** Throws AppError Cancelled when `signal` aborts before there is a group. */
  create(limits: SandboxLimits, request: LimitRequest): Promise<LimitGroup>;
  close(): Promise<void>;
}

/** What a group has had so far, in ms. */
export interface GroupUse {
  /** CPU time. */
  cpuMs: number;
  /** Time in which a process of it could have run, and waited for the CPU; null where the kernel does not tell. */
  waitedMs: number | null;
}

/** A control group before it is known who runs when: see `shared.ts`. */
export interface ControlGroup extends Omit<LimitGroup, "freeze" | "thaw" | "rouse"> {
  /** Read at once: it takes the kernel a moment, and whoever else waits for the kernel must not delay it. */
  use(): GroupUse;
  /** As control groups v2 count. */
  setWeight(weight: number): Promise<void>;
  /** Ask the kernel to stop all processes on their way out of it, or to let them go on. */
  hold(held: boolean): Promise<void>;
  /** Wait until all have stopped, or go on. */
  settled(held: boolean): Promise<void>;
}

/** Control groups of one hierarchy, or of one set of them. */
export interface ControlGroups {
  create(limits: SandboxLimits): Promise<ControlGroup>;
  /** CPU time that all groups have used so far, removed ones included, in ms; read at once. */
  cpuMs(): number;
  close(): Promise<void>;
}

/** bubblewrap's own two processes count as well. */
export const OWN_PROCESSES = 2;
/** Length of the period a CPU ceiling is enforced over, in microseconds. */
export const CPU_PERIOD_US = 100_000;
