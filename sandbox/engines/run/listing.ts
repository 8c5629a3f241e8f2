import { readFileSync } from "node:fs";
import { cpuMs, type ProcessInfo, residentBytes } from "../../process-tree.ts";
import type { ProcessEntry } from "../../types.ts";

/** USER_HZ, see `process-tree.ts`. */
const TICKS_PER_SECOND = 100;
/** Of a command line: what a list can show, not what a program may set. */
const MAX_COMMAND_BYTES = 4096;

function readProcessFile(pid: number, name: string): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/${name}`, "utf8");
  } catch {
    return undefined;
  }
}

/** The number a process of ours goes by in the innermost process namespace it is in; undefined when it is gone. */
export function insidePid(hostPid: number): number | undefined {
  const numbers = /^NSpid:(.*)$/m.exec(readProcessFile(hostPid, "status") ?? "")?.[1];
  return numbers === undefined ? undefined : Number(numbers.trim().split(/\s+/).at(-1));
}

/** When the machine was started, ms since 1970; the clock may be set, so it is worked out anew. */
function bootedAt(): number {
  const seconds = Number(readFileSync("/proc/uptime", "latin1").split(" ")[0]);
  return Date.now() - seconds * 1000;
}

/** A process as people want it listed. */
export function describeProcess(info: ProcessInfo, pid: number, ppid: number): ProcessEntry {
  const line = (readProcessFile(info.pid, "cmdline") ?? "").slice(0, MAX_COMMAND_BYTES);
  return {
    pid,
    ppid,
    hostPid: info.pid,
    command: line === "" ? [info.command] : line.replace(/\0+$/, "").split("\0"),
    state: info.state,
    cpuMs: cpuMs(info),
    memoryBytes: residentBytes(info),
    startedAt: Math.round(bootedAt() + (Number(info.started) * 1000) / TICKS_PER_SECOND),
  };
}
