import { readdirSync, readFileSync } from "node:fs";

/** What /proc/<pid>/stat tells of a process. */
export interface ProcessInfo {
  pid: number;
  ppid: number;
  /** Pid of the process that opened its process group. */
  group: number;
  /** Pid of the process that opened its session. */
  session: number;
  /** The process group that has its terminal's input; -1 without a terminal. */
  foreground: number;
  /** Letter of proc(5): R, S, D, T (stopped), Z (dead, not yet collected)... */
  state: string;
  /** Clock ticks since boot; with the pid it names one process for good, as pids are used again. */
  started: string;
  command: string;
  cpuTicks: number;
  threads: number;
  residentPages: number;
}

/** USER_HZ, which Linux fixes at 100 towards programs whatever the kernel's own rate. */
const TICK_MS = 10;
const PAGE_BYTES = 4096;

export function readProcess(pid: number): ProcessInfo | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  } catch {
    return undefined;
  }
  // The command's name stands in brackets and may hold anything; the fields count from behind it.
  const end = stat.lastIndexOf(")");
  const fields = stat.slice(end + 2).split(" ");
  return {
    pid,
    ppid: Number(fields[1]),
    group: Number(fields[2]),
    session: Number(fields[3]),
    foreground: Number(fields[5]),
    state: fields[0] ?? "Z",
    started: fields[19] ?? "",
    command: stat.slice(stat.indexOf("(") + 1, end),
    cpuTicks: Number(fields[11]) + Number(fields[12]) + Number(fields[13]) + Number(fields[14]),
    threads: Number(fields[17]),
    residentPages: Number(fields[21]),
  };
}

export const cpuMs = (info: ProcessInfo) => info.cpuTicks * TICK_MS;
export const residentBytes = (info: ProcessInfo) => info.residentPages * PAGE_BYTES;

/** Whether that very process (not a later one of the same pid) still runs; a zombie does not. */
export function isRunning(identity: { pid: number; started: string }): boolean {
  const now = readProcess(identity.pid);
  return now !== undefined && now.started === identity.started && now.state !== "Z" && now.state !== "X";
}

/** Every process of the machine, by pid: a few ms, so not for hot paths. */
export function allProcesses(): Map<number, ProcessInfo> {
  const all = new Map<number, ProcessInfo>();
  for (const name of readdirSync("/proc")) {
    const pid = Number(name);
    const info = Number.isInteger(pid) ? readProcess(pid) : undefined;
    if (info !== undefined) all.set(pid, info);
  }
  return all;
}

/** `root` and all below it that live. Daemons stay in: a sandbox's init adopts what loses its parent. */
export function treeOf(root: number, all: ReadonlyMap<number, ProcessInfo>): ProcessInfo[] {
  const children = new Map<number, ProcessInfo[]>();
  for (const info of all.values()) {
    const siblings = children.get(info.ppid);
    if (siblings === undefined) children.set(info.ppid, [info]);
    else siblings.push(info);
  }
  const first = all.get(root);
  const tree: ProcessInfo[] = first === undefined ? [] : [first];
  for (let at = 0; at < tree.length; at += 1) tree.push(...(children.get(tree[at]?.pid ?? -1) ?? []));
  return tree.filter(({ state }) => state !== "Z" && state !== "X");
}

/** Signal a process that may have gone meanwhile. */
export function signal(pid: number, name: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, name);
  } catch {
    return false;
  }
}
