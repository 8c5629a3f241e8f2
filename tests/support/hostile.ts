import { setTimeout as sleep } from "node:timers/promises";
import { type Sandboxes, startCommand } from "#sandbox";
import { AppError } from "#schemas";
import { type Attack, asFiles, attackSpec } from "./attack.ts";
import { call, machineProgram } from "./machine-program.ts";

const PAUSE_MS = 1000;
const STAGGER_MS = 60;
const MIB = 1 << 20;
const OUTPUT_BYTES = MIB;
const TIMEOUT_MS = 600_000;
const SIGCHLD = 17;
const files = asFiles({
  fork: machineProgram([call("clone", SIGCHLD, 0, 0, 0, 0), call("setsid")], {
    forever: true,
    regardless: true,
  }),
  thread: machineProgram([call("clone", 0x10f00, 0, 0, 0, 0)], { forever: true, regardless: true }),
  // PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE
  map: machineProgram([call("mmap", 0, MIB, 3, 0x8022, -1, 0)], { forever: true, regardless: true }),
  calls: machineProgram([call("getpid")], { forever: true, regardless: true }),
});

/** One of each kind; most go on until somebody ends them, those that hit a limit are begun again. */
const HOSTILE: readonly Attack[] = [
  { sh: "exec /attack/fork", files },
  { sh: "exec /attack/thread", files },
  { sh: "exec /attack/map", files },
  { sh: "exec /attack/calls", files },
  { sh: "while :; do :; done" },
  { sh: "bomb() { bomb | bomb & }; bomb; sleep 1000" },
  { sh: "cat /dev/zero >&2 & exec cat /dev/zero" },
  { sh: "while :; do dd if=/dev/zero of=/tmp/x bs=64k; rm /tmp/x; done 2>/dev/null" },
  { sh: "cd /tmp; while :; do seq 1 2000 | xargs touch; rm -f /tmp/*; done 2>/dev/null" },
  {
    sh: "(setsid sh -c 'trap \"\" TERM; while :; do :; done' &); while :; do find /usr /proc -maxdepth 3; done",
  },
];

/** A machine at its limit may answer that it could not start in time: undefined then. All else is thrown. */
export async function unlessBusy<T>(start: () => Promise<T>): Promise<T | undefined> {
  try {
    return await start();
  } catch (error) {
    if (error instanceof AppError && ["Timeout", "EngineUnavailable"].includes(error.code)) return undefined;
    throw error;
  }
}

export interface Siege {
  /** How many hostile programs have been started so far, and how many hit a limit. */
  readonly started: number;
  readonly limited: number;
  /** End all of them. Throws what went wrong with any. */
  stop(): Promise<void>;
}

/**
 * Keep so many hostile programs running at once, each in a slot of its own, with `mark` in their environment.
 * Whoever calls this stops it.
 */
export function besiege(sandboxes: Sandboxes, count: number, mark: string): Siege {
  const siege = { started: 0, limited: 0, stop };
  const stopping = new AbortController();
  const { signal } = stopping;
  const one = async (attack: Attack, index: number) => {
    await sleep(index * STAGGER_MS, undefined, { signal }).catch(() => undefined);
    while (!signal.aborted) {
      const slot = await sandboxes.slots.acquire();
      try {
        const limits = { memoryBytes: 64 * MIB, processes: 10, tmpBytes: 4 * MIB };
        const owner = `${mark}-${index}`;
        const spec = { ...(await attackSpec({ ...attack, limits, env: { mark } }, slot)), owner };
        // As users start them: what they write is read, kept up to a limit, and no faster than need be.
        const options = { outputBytes: OUTPUT_BYTES, timeoutMs: TIMEOUT_MS };
        const command = await unlessBusy(() => startCommand(sandboxes, spec, options));
        if (command === undefined) continue;
        siege.started += 1;
        const end = () => void command.kill();
        signal.addEventListener("abort", end, { once: true });
        if (signal.aborted) end();
        const { limit } = await command.finished;
        signal.removeEventListener("abort", end);
        if (limit !== undefined) siege.limited += 1;
        // Nobody may begin again without end: that is held back before it comes to a sandbox.
        await sleep(PAUSE_MS, undefined, { signal }).catch(() => undefined);
      } finally {
        await slot.release();
      }
    }
  };
  const all = Array.from({ length: count }, (_, index) => one(HOSTILE[index % HOSTILE.length] ?? {}, index));
  const settled = Promise.all(all);
  settled.catch(() => undefined);
  async function stop() {
    stopping.abort();
    await settled;
  }
  return siege;
}
