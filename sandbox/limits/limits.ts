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
  /** SIGKILL to all, frozen ones included. */
  killAll(): Promise<void>;
  stats(): Promise<SandboxStats>;
  hits(): Promise<LimitHits>;
  /** Give back what the group holds of the system; its processes are gone by then. */
  remove(): Promise<void>;
}

/** One way of enforcing limits: the best that this machine gives us. */
export interface LimitDriver {
  create(name: string, limits: SandboxLimits): Promise<LimitGroup>;
  close(): Promise<void>;
}

/** bubblewrap's own two processes count as well. */
export const OWN_PROCESSES = 2;
/** Length of the period a CPU ceiling is enforced over, in microseconds. */
export const CPU_PERIOD_US = 100_000;
