import { availableParallelism } from "node:os";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { asFiles } from "../support/attack.ts";
import { type AttackedHost, HOSTS, openHost } from "../support/attacked-host.ts";
import { call, machineProgram } from "../support/machine-program.ts";

const EPERM = 1;
const EACCES = 13;

/** What would put a program before all others, if it could. */
const PRIORITY = {
  "nice-20": machineProgram([call("setpriority", 0, 0, -20)]),
  "nice-1": machineProgram([call("setpriority", 0, 0, -1)]),
  "nice of the user": machineProgram([call("setpriority", 2, 1000, -5)]),
  fifo: machineProgram([call("sched_setscheduler", 0, 1, Buffer.from([50, 0, 0, 0]))]),
  "round robin": machineProgram([call("sched_setscheduler", 0, 2, Buffer.from([1, 0, 0, 0]))]),
  deadline: machineProgram([call("sched_setattr", 0, deadlineAttributes(), 0)]),
  "real-time disk": machineProgram([call("ioprio_set", 1, 0, 1 << 13)]),
  // RLIMIT_RTPRIO and RLIMIT_NICE, raised for itself.
  "more real-time": machineProgram([call("prlimit64", 0, 14, limit(99), 0)]),
  "more nice": machineProgram([call("prlimit64", 0, 13, limit(40), 0)]),
};

/** struct sched_attr: size, SCHED_DEADLINE, and 9 of every 10 ms. */
function deadlineAttributes(): Buffer {
  const bytes = Buffer.alloc(48);
  bytes.writeUInt32LE(48, 0);
  bytes.writeUInt32LE(6, 4);
  for (const [at, ns] of [
    [24, 9_000_000n],
    [32, 10_000_000n],
    [40, 10_000_000n],
  ] as const) {
    bytes.writeBigUInt64LE(ns, at);
  }
  return bytes;
}

function limit(value: number): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeBigUInt64LE(BigInt(value), 0);
  bytes.writeBigUInt64LE(BigInt(value), 8);
  return bytes;
}

describe.each(HOSTS)("with %s", (name) => {
  let host: AttackedHost;
  beforeAll(async () => {
    host = await openHost(name);
  });
  afterAll(() => host?.[Symbol.asyncDispose]());

  describe("14 time", () => {
    it("[MU-3] any number of busy programs get no more CPU than the ceiling, where one is kept", async () => {
      const cpus = 0.2;
      const damage = await host.attack({
        sh: `echo go; for i in $(seq ${2 * availableParallelism()}); do (while :; do :; done) & done; wait`,
        limits: { cpus },
        endAfterMs: 1500,
      });
      const { cpuMs, afterMs } = damage.spent;
      expect(damage.left).toEqual([]);
      expect(cpuMs).toBeGreaterThan(0);
      // Without control groups there is none. One period's share may be spent ahead of time.
      if (host.exact) expect(cpuMs).toBeLessThanOrEqual(cpus * (afterMs + 200));
    });

    it("[MU-3] [MU-6] who spins or sleeps beyond its time is ended from outside", async () => {
      const damage = await host.attack({
        sh: "trap '' TERM INT ALRM XCPU; (trap '' TERM; sleep 1000) & echo go; while :; do :; done",
        endAfterMs: 200,
      });
      expect(damage).toMatchObject({ cutShort: true, signal: "SIGKILL", left: [] });
    });

    it("[MU-3] nothing gets ahead of others by asking for it", async () => {
      const { stdout } = await host.attack({
        sh: `cd /attack; for name in *; do "./$name"; echo "$name=$?"; done; cut -d' ' -f18,19,40,41 /proc/self/stat; nice`,
        files: asFiles(PRIORITY),
      });
      const lines = stdout.trim().split("\n");
      // Kernel's priority and nice value, real-time priority and policy: those of everybody.
      expect(lines.splice(-2)).toEqual(["20 0 0 0", "0"]);
      expect(lines.length).toBe(Object.keys(PRIORITY).length);
      for (const line of lines) expect(line).toMatch(new RegExp(`=(${EPERM}|${EACCES})$`));
    });
  });
});
