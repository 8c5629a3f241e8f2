import { setTimeout as sleep } from "node:timers/promises";
import { countsProcessesPerNamespace } from "../host.ts";
import {
  allProcesses,
  cpuMs,
  isRunning,
  type ProcessInfo,
  readProcess,
  residentBytes,
  signal,
  treeOf,
} from "../process-tree.ts";
import type { SandboxLimits } from "../types.ts";
import type { LimitDriver, LimitGroup } from "./limits.ts";

/** bubblewrap's init, which lives in the sandbox's own user namespace; the outer process does not. */
const OWN_INSIDE = 1;
const STOP_MS = 5000;
const STOP_WAIT_MS = 2;
/** Looks in a row that must find nothing running: a single one can miss who forks and exits meanwhile. */
const CLEAN_LOOKS = 3;

const isStopped = ({ state }: ProcessInfo) => state === "T" || state === "t";

/** Without a control group the sandbox is the process tree below its first process. */
class TreeGroup implements LimitGroup {
  readonly join = [];
  readonly watched = true;
  readonly prlimit: readonly string[];
  #root: number | undefined;
  #stopped: ProcessInfo[] = [];

  constructor(limits: SandboxLimits) {
    const processes = limits.processes + OWN_INSIDE;
    this.prlimit = countsProcessesPerNamespace() ? [`--nproc=${processes}`] : [];
  }

  attach(rootPid: number): void {
    this.#root = rootPid;
  }

  #tree(): ProcessInfo[] {
    // Looking at every process of the machine takes ms, so not without need.
    if (this.#root === undefined || readProcess(this.#root) === undefined) return [];
    return treeOf(this.#root, allProcesses());
  }

  async pids(): Promise<number[]> {
    return this.#tree().map(({ pid }) => pid);
  }

  /**
   * Stop all but the outermost, which only waits; again until no new one has been forked meanwhile. One that
   * waits in the kernel (state D, as for a child of vfork that is stopped before its exec) stops on its way out.
   */
  async freeze(): Promise<void> {
    const deadline = Date.now() + STOP_MS;
    const told = new Set<number>();
    for (let clean = 0; clean < CLEAN_LOOKS; await sleep(STOP_WAIT_MS)) {
      const running = this.#tree().filter(
        (info) => info.pid !== this.#root && !isStopped(info) && !(info.state === "D" && told.has(info.pid)),
      );
      clean = running.length === 0 ? clean + 1 : 0;
      for (const info of running) {
        signal(info.pid, "SIGSTOP");
        if (!told.has(info.pid)) this.#stopped.push(info);
        told.add(info.pid);
      }
      if (Date.now() > deadline) {
        await this.thaw();
        throw new Error("the processes did not stop in time");
      }
    }
  }

  /** Let go on what `freeze` stopped; what the program had stopped itself stays so. */
  async thaw(): Promise<void> {
    const stopped = this.#stopped;
    this.#stopped = [];
    for (const info of stopped) if (isRunning(info)) signal(info.pid, "SIGCONT");
  }

  /** It never waits. */
  rouse(): void {}

  async killAll(): Promise<void> {
    for (const { pid } of this.#tree()) signal(pid, "SIGKILL");
  }

  async stats() {
    const tree = this.#tree();
    const sum = (of: (info: ProcessInfo) => number) => tree.reduce((total, info) => total + of(info), 0);
    return { memoryBytes: sum(residentBytes), cpuMs: sum(cpuMs), processes: tree.length };
  }

  /** The launcher's watchdog tells these itself. */
  async hits() {
    return { memory: 0, processes: 0 };
  }

  async remove(): Promise<void> {
    this.#root = undefined;
  }
}

/** Limits of last resort: resource limits on each process, and a watchdog over the tree. */
export function openRlimits(): LimitDriver {
  return {
    create: async (limits) => new TreeGroup(limits),
    close: async () => undefined,
  };
}
