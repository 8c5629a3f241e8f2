import { writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import type { SandboxExit, Sandboxes, SandboxLimits, SandboxSpec, Slot } from "#sandbox";
import { allProcesses, isRunning, type ProcessInfo, treeOf } from "#sandbox/process-tree.ts";
import { LIMITS, NODE, specFor } from "#sandbox/testing/harness.ts";

/** One hostile program: a script of sh, or of Node, and what it brings along. Plain data, to be sent elsewhere. */
export interface Attack {
  sh?: string;
  /** CommonJS. */
  node?: string;
  /** Executables at `/attack/<name>`, as base64. */
  files?: Record<string, string>;
  env?: Record<string, string>;
  limits?: Partial<SandboxLimits>;
  /** Carried out by somebody else once this one has said something; then this one is ended. */
  meanwhile?: Attack;
  /** Stop it before it is ended. */
  freeze?: boolean;
  /** Do not end it before it has been seen with so much. */
  reaches?: Partial<Damage["most"]>;
  /** End it so long after it said anything; without it, it runs to its own end, for `MAX_MS` at most. */
  endAfterMs?: number;
}

export interface Damage extends SandboxExit {
  stdout: string;
  stderr: string;
  /** The most that was seen at once. */
  most: { processes: number; threads: number; memoryBytes: number };
  /** CPU time it had taken at the last look, and how long after its start that was; in ms. */
  spent: { cpuMs: number; afterMs: number };
  /** Processes of it, or of its user, that lived when it was said to have ended. */
  left: string[];
  /** Still there when it was ended from outside. */
  cutShort: boolean;
  meanwhile?: Damage;
}

const MAX_MS = 60_000;
const LOOK_MS = 40;
const KEPT_BYTES = 1 << 18;

/** Executables for `Attack.files`. */
export const asFiles = (programs: Record<string, Buffer>): Record<string, string> =>
  Object.fromEntries(Object.entries(programs).map(([name, bytes]) => [name, bytes.toString("base64")]));

/** What to start in `slot` for it; its files are written there. */
export async function attackSpec(attack: Attack, slot: Slot): Promise<SandboxSpec> {
  const mounts: SandboxSpec["mounts"][number][] = [];
  if (attack.files !== undefined) {
    const source = await slot.makeDir("attack");
    for (const [name, bytes] of Object.entries(attack.files)) {
      await writeFile(`${source}/${name}`, Buffer.from(bytes, "base64"), { mode: 0o755 });
    }
    mounts.push({ source, target: "/attack", mode: "ro" });
  }
  const node = { source: process.execPath, target: NODE, mode: "ro" as const };
  const argv =
    attack.node === undefined
      ? ["/bin/sh", "-c", attack.sh ?? ""]
      : [NODE, "--input-type=commonjs", "-e", attack.node];
  if (attack.node !== undefined) mounts.push(node);
  return specFor(slot, argv, { mounts, env: attack.env ?? {}, limits: { ...LIMITS, ...attack.limits } });
}

function hasReached(most: Damage["most"], wanted: Attack["reaches"] = {}): boolean {
  const { processes = 0, threads = 0, memoryBytes = 0 } = wanted;
  return most.processes >= processes && most.threads >= threads && most.memoryBytes >= memoryBytes;
}

const describeProcess = ({ pid, command, state }: ProcessInfo) => `${pid} ${command} ${state}`;

/** Carry an attack out in a slot of its own, and tell what came of it. Throws when it could not be started. */
export async function carryOut(sandboxes: Sandboxes, attack: Attack): Promise<Damage> {
  const slot = await sandboxes.slots.acquire();
  try {
    const running = await sandboxes.start(await attackSpec(attack, slot));
    running.stdin.end();
    const kept = { stdout: "", stderr: "" };
    const spoken = Promise.withResolvers<void>();
    const grown = Promise.withResolvers<void>();
    for (const name of ["stdout", "stderr"] as const) {
      running[name].on("data", (chunk) => {
        if (kept[name].length < KEPT_BYTES) kept[name] += String(chunk);
        spoken.resolve();
      });
    }
    const most = { processes: 0, threads: 0, memoryBytes: 0 };
    let spent = { cpuMs: 0, afterMs: 0 };
    const seen = new Map<string, ProcessInfo>();
    let ended = false;
    const exited = running.exited.finally(() => {
      ended = true;
    });
    const look = async () => {
      const tree = treeOf(running.pid, allProcesses());
      for (const info of tree) seen.set(`${info.pid}/${info.started}`, info);
      most.processes = Math.max(most.processes, tree.length);
      most.threads = Math.max(
        most.threads,
        tree.reduce((total, { threads }) => total + threads, 0),
      );
      const { memoryBytes, cpuMs } = await running.stats();
      most.memoryBytes = Math.max(most.memoryBytes, memoryBytes);
      if (hasReached(most, attack.reaches)) grown.resolve();
      if (cpuMs > 0) spent = { cpuMs, afterMs: Date.now() - running.startedAt };
    };
    const looking = (async () => {
      for (; !ended; await sleep(LOOK_MS)) await look();
    })();
    const { endAfterMs, meanwhile } = attack;
    let beside: Damage | undefined;
    const patience = async () => {
      const long = sleep(MAX_MS, undefined, { ref: false });
      if (endAfterMs === undefined && meanwhile === undefined) return long;
      await Promise.race([Promise.all([spoken.promise, grown.promise]), long]);
      if (meanwhile !== undefined) beside = await carryOut(sandboxes, meanwhile);
      return sleep(endAfterMs, undefined, { ref: false });
    };
    await Promise.race([exited, patience()]);
    const cutShort = !ended;
    if (cutShort) await look();
    // Without control groups a runaway may not stand still in time; it has to end all the same.
    if (cutShort && attack.freeze === true) await running.freeze().catch(() => undefined);
    await running.kill();
    const exit = await exited;
    const left = [...seen.values()].filter(isRunning);
    await looking;
    const told = { ...exit, ...kept, most, spent, left: left.map(describeProcess), cutShort };
    return beside === undefined ? told : { ...told, meanwhile: beside };
  } finally {
    await slot.release();
  }
}
