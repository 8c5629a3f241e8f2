import { readlinkSync } from "node:fs";
import { isRunning, readProcess } from "./process-tree.ts";

let count = 0;

/** Inode of our process namespace: pids of another one tell us nothing. */
function processNamespace(): string {
  return readlinkSync("/proc/self/ns/pid").replaceAll(/\D/g, "");
}

/** A name for what this process leaves on the system, by which a later one can tell whether it still lives. */
export function newInstanceName(): string {
  count += 1;
  return `${processNamespace()}-${process.pid}-${readProcess(process.pid)?.started ?? 0}-${count}`;
}

/** "foreign": made in another process namespace (a container sharing the directory), so nothing is known. */
export function instanceState(name: string): "alive" | "dead" | "foreign" | "other" {
  const [, namespace, pid, started] = /^(\d+)-(\d+)-(\d+)-\d+$/.exec(name) ?? [];
  if (namespace === undefined || pid === undefined || started === undefined) return "other";
  if (namespace !== processNamespace()) return "foreign";
  return isRunning({ pid: Number(pid), started }) ? "alive" : "dead";
}
