import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Attack, asFiles, type Damage } from "../support/attack.ts";
import { type AttackedHost, HOSTS, openHost } from "../support/attacked-host.ts";
import { call, machineProgram, type SystemCall } from "../support/machine-program.ts";

const MIB = 1 << 20;
const SIGCHLD = 17;
/** CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD: a thread, on the stack it shares. */
const THREAD = 0x10f00;
/** CLONE_VM | CLONE_VFORK */
const VFORK = 0x4100;

/** Wait for ever, or so many ms. */
const pause = (ms?: number): SystemCall[] => {
  if (ms === undefined) return [call("ppoll", 0, 0, 0, 0, 0)];
  const time = Buffer.alloc(16);
  time.writeBigInt64LE(BigInt(ms) * 1_000_000n, 8);
  return [call("ppoll", 0, 0, time, 0, 0)];
};

const forkers = asFiles({
  fork: machineProgram([call("clone", SIGCHLD, 0, 0, 0, 0)], { forever: true, regardless: true }),
  vfork: machineProgram([call("clone", VFORK | SIGCHLD, 0, 0, 0, 0)], { forever: true, regardless: true }),
  thread: machineProgram([call("clone", THREAD, 0, 0, 0, 0)], { forever: true, regardless: true }),
  session: machineProgram([call("clone", SIGCHLD, 0, 0, 0, 0), call("setsid")], {
    forever: true,
    regardless: true,
  }),
});

const PROCESSES = 40;
const BOMBS: Record<string, Attack> = {
  // Without the last word the shells end as soon as they may not fork, and nobody has seen them on a fast machine.
  "a shell's": { sh: "echo go; bomb() { bomb | bomb & exec sleep 1000; }; bomb" },
  "Node's": {
    node: `const start = () => { const child = require("child_process").spawn("/bin/sh", ["-c", "sleep 1000 & sleep 1000"]);
      child.on("error", () => 0); setImmediate(start); };
      console.log("go"); start(); process.on("uncaughtException", () => setImmediate(start));`,
  },
  "fork(2)'s": { sh: "echo go; exec /attack/fork", files: forkers },
  "vfork(2)'s": { sh: "echo go; /attack/vfork & exec /attack/vfork", files: forkers },
  "one of threads": { sh: "echo go; exec /attack/thread", files: forkers },
  "one that leaves every session": { sh: "echo go; exec /attack/session", files: forkers },
};

const MEMORY_LIMIT = 80 * MIB;
/** PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE */
const MAP = [3, 0x8022] as const;
const MEMORY: Record<string, Attack> = {
  "a heap": { node: "const all = []; setInterval(() => all.push(Buffer.alloc(8 << 20, 1)), 10)" },
  "memory mapped and touched": {
    sh: "exec /attack/map",
    files: asFiles({
      map: machineProgram([call("mmap", 0, 4 * MIB, ...MAP, -1, 0), ...pause(20)], {
        forever: true,
      }),
    }),
  },
  "a string in a shell": { sh: `x=aaaaaaaaaaaaaaaa; while :; do x="$x$x"; done` },
};

/** Pairs get the next two free descriptors, so what is written to is known beforehand. */
const pairs = (count: number, make: () => SystemCall[], fill: (end: number) => SystemCall[]): SystemCall[] =>
  Array.from({ length: count }, (_, index) => [...make(), ...fill(4 + 2 * index)]).flat();
const block = Buffer.alloc(64 << 10, "x");
const writeBlock = (end: number) => call("write", end, block, block.length);
const ends = Buffer.alloc(8);
const hoard = (calls: SystemCall[]) =>
  asFiles({ hoard: machineProgram([...calls, ...pause()], { regardless: true }) });
const IN_THE_KERNEL: Record<string, Attack> = {
  "what fills /tmp": { sh: "exec dd if=/dev/zero of=/tmp/x bs=1M", limits: { fileBytes: 512 * MIB } },
  "what fills /dev/shm": { sh: "exec dd if=/dev/zero of=/dev/shm/x bs=1M", limits: { fileBytes: 512 * MIB } },
  "files without a byte": { sh: "cd /tmp; seq 1 10000000 | xargs touch" },
  "what waits in pipes": {
    sh: "exec /attack/hoard",
    files: hoard(
      pairs(
        60,
        // O_NONBLOCK, F_SETPIPE_SZ
        () => [call("pipe2", ends, 0o4000)],
        (end) => [call("fcntl", end, 1031, MIB), ...Array.from({ length: 16 }, () => writeBlock(end))],
      ),
    ),
    limits: { memoryBytes: 40 * MIB },
  },
  "what waits in sockets": {
    sh: "exec /attack/hoard",
    files: hoard(
      pairs(
        480,
        // AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK
        () => [call("socketpair", 1, 0o4001, 0, ends)],
        (end) => [writeBlock(end), writeBlock(end), writeBlock(end)],
      ),
    ),
    limits: { memoryBytes: 40 * MIB },
  },
};

describe.each(HOSTS)("with %s", (name) => {
  let host: AttackedHost;
  beforeAll(async () => {
    host = await openHost(name);
  });
  afterAll(() => host?.[Symbol.asyncDispose]());

  const expectAllWell = async (damage: Damage) => {
    expect(damage.left).toEqual([]);
    expect(await host.attack({ sh: "echo fine" })).toMatchObject({ code: 0, stdout: "fine\n" });
  };

  describe("8 fork bombs", () => {
    it.each(Object.entries(BOMBS))(
      "[MU-3] [MU-6] %s stays within its number and is ended",
      async (_, bomb) => {
        const damage = await host.attack({
          ...bomb,
          limits: { processes: PROCESSES, memoryBytes: 512 * MIB },
          reaches: { threads: 9 },
          endAfterMs: 400,
        });
        expect(damage.stdout).toBe("go\n");
        // Where nobody but the launcher counts, it may have ended one before anybody saw it.
        if (damage.limit !== "processes") expect(damage.most.threads).toBeGreaterThan(8);
        // bubblewrap's own two processes come on top.
        expect(damage.most.threads).toBeLessThanOrEqual(PROCESSES + 2);
        await expectAllWell(damage);
      },
    );
  });

  describe("9 memory bombs", () => {
    it.each(Object.entries(MEMORY))("[MU-3] %s is ended, and the reason named", async (_, bomb) => {
      const damage = await host.attack({ ...bomb, limits: { memoryBytes: MEMORY_LIMIT, tmpBytes: MIB } });
      expect(damage).toMatchObject({ limit: "memory", cutShort: false });
      if (host.exact) expect(damage.most.memoryBytes).toBeLessThanOrEqual(MEMORY_LIMIT);
      await expectAllWell(damage);
    });

    it("[MU-3] many small processes count together", async () => {
      const damage = await host.attack({
        sh: `echo go; for i in $(seq 30); do (x=$(head -c 8000000 /dev/zero | tr '\\0' a); sleep 1000; :) & done; wait`,
        limits: { memoryBytes: MEMORY_LIMIT, processes: 200 },
        ...(host.exact ? { reaches: { memoryBytes: MEMORY_LIMIT / 2 }, endAfterMs: 1500 } : {}),
      });
      expect(damage.most.memoryBytes).toBeGreaterThan(MEMORY_LIMIT / 2);
      if (host.exact) expect(damage.most.memoryBytes).toBeLessThanOrEqual(MEMORY_LIMIT);
      else expect(damage).toMatchObject({ limit: "memory", cutShort: false });
      await expectAllWell(damage);
    });

    it.each(["/tmp", "/dev/shm"])("[MU-3] %s holds no more than it may, in bytes", async (place) => {
      const damage = await host.attack({
        sh: `cd ${place}; dd if=/dev/zero of=big bs=64k 2>/dev/null; stat -c %s big; echo $?`,
        limits: { tmpBytes: 4 * MIB, fileBytes: 64 * MIB },
      });
      expect(damage.stdout).toBe(`${4 * MIB}\n0\n`);
      await expectAllWell(damage);
    });

    it("[MU-3] files cached for it are given up, not its programs", async () => {
      const damage = await host.attack({
        sh: "cat $(find /usr -xdev -type f -size +1M 2>/dev/null | head -n 60) | wc -c",
        limits: { memoryBytes: MEMORY_LIMIT },
      });
      expect(damage).toMatchObject({ code: 0 });
      expect(damage.limit).toBeUndefined();
      expect(Number(damage.stdout)).toBeGreaterThan(MEMORY_LIMIT);
      await expectAllWell(damage);
    });

    // What the kernel keeps for a program is counted by control groups alone.
    it.each(Object.entries(IN_THE_KERNEL))("[MU-3] %s counts as memory", async (_, bomb) => {
      if (!host.exact) return;
      const limits = { memoryBytes: MEMORY_LIMIT, tmpBytes: 512 * MIB, ...bomb.limits };
      const damage = await host.attack({ ...bomb, limits });
      expect(damage).toMatchObject({ limit: "memory", cutShort: false });
      expect(damage.most.memoryBytes).toBeLessThanOrEqual(limits.memoryBytes);
      await expectAllWell(damage);
    });
  });
});
