import { once } from "node:events";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { SandboxProcess } from "#sandbox";
import { allProcesses, isRunning, treeOf } from "#sandbox/process-tree.ts";
import { openForTest, specFor, type TestSandboxes, until } from "#sandbox/testing/harness.ts";

const MIB = 1 << 20;
const FLOODED = 600 * MIB;
const FLOOD = "cat /dev/zero >&2 & exec cat /dev/zero";

function residentOf(pid: number): number {
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return Number(kib) * 1024;
}

describe.each(["the best limits", "rlimits"] as const)("with %s", (name) => {
  let opened: TestSandboxes;
  beforeAll(async () => {
    opened = await openForTest(name === "rlimits" ? { tier: "rlimits" } : {});
  });
  afterAll(() => opened?.[Symbol.asyncDispose]());
  const releases: (() => Promise<void>)[] = [];
  afterEach(async () => {
    for (const release of releases.splice(0)) await release();
  });

  async function start(script: string): Promise<SandboxProcess> {
    const slot = await opened.sandboxes.slots.acquire();
    releases.push(() => slot.release());
    return opened.sandboxes.start(specFor(slot, ["/bin/sh", "-c", script]));
  }

  /** How much the server and the launcher grow while `act` goes on. */
  async function growth(act: () => Promise<void>): Promise<{ server: number; launcher: number }> {
    const launcher = opened.sandboxes.launcherPid ?? 0;
    const before = { server: residentOf(process.pid), launcher: residentOf(launcher) };
    await act();
    return {
      server: residentOf(process.pid) - before.server,
      launcher: residentOf(launcher) - before.launcher,
    };
  }

  /** Until the program has come to a standstill, as its CPU time shows. */
  async function stoodStill(running: SandboxProcess): Promise<void> {
    let spent = -1;
    let still = 0;
    await until(async () => {
      await sleep(60);
      const { cpuMs } = await running.stats();
      // Both can be at a standstill before the kernel has counted a tick.
      const begun =
        treeOf(running.pid, allProcesses()).filter(({ command }) => command === "cat").length === 2;
      still = begun && cpuMs - spent < 3 ? still + 1 : 0;
      spent = cpuMs;
      return still >= 4;
    });
  }

  async function endedByKill(running: SandboxProcess): Promise<void> {
    const tree = treeOf(running.pid, allProcesses());
    await running.kill();
    expect(tree.filter(isRunning)).toEqual([]);
  }

  describe("11 floods of output", () => {
    it("[MU-8] without a newline, on both streams at once, read as fast as they come: no memory is kept", async () => {
      const running = await start(FLOOD);
      const grown = await growth(async () => {
        let taken = 0;
        for (const stream of [running.stdout, running.stderr])
          stream.on("data", (some) => (taken += some.length));
        await until(() => taken > FLOODED);
      });
      // What was read and let go is collected now and then, so not nothing.
      expect(grown.server).toBeLessThan(FLOODED / 3);
      expect(grown.launcher).toBeLessThan(16 * MIB);
      await endedByKill(running);
    });

    it("[MU-8] read by nobody: it stands still, and is ended all the same", async () => {
      const running = await start(FLOOD);
      const grown = await growth(() => stoodStill(running));
      expect(grown.server).toBeLessThan(32 * MIB);
      expect(grown.launcher).toBeLessThan(16 * MIB);
      await endedByKill(running);
    });

    it("[MU-8] by a reader that stops in the middle: it stands still again, and nothing is kept", async () => {
      const running = await start(FLOOD);
      let taken = 0;
      running.stdout.on("data", (some) => (taken += some.length));
      running.stderr.resume();
      await until(() => taken > 4 * MIB);
      const grown = await growth(async () => {
        running.stdout.pause();
        running.stderr.pause();
        await stoodStill(running);
      });
      expect(grown.server).toBeLessThan(32 * MIB);
      for (const stream of [running.stdout, running.stderr])
        expect(stream.readableLength).toBeLessThanOrEqual(MIB);
      await endedByKill(running);
    });

    it("[MU-8] by a slow reader: every byte arrives, in order, on both streams", async () => {
      const running = await start("seq 1 200000 & seq 200001 400000 >&2; wait");
      const slowly = async (stream: typeof running.stdout) => {
        let text = "";
        for await (const some of stream) {
          text += String(some);
          await sleep(1);
        }
        return text.trim().split("\n").map(Number);
      };
      const [out, err] = await Promise.all([slowly(running.stdout), slowly(running.stderr)]);
      expect(out.length).toBe(200_000);
      expect(out.every((value, index) => value === index + 1)).toBe(true);
      expect(err.length).toBe(200_000);
      expect(err.every((value, index) => value === index + 200_001)).toBe(true);
      expect(await running.exited).toMatchObject({ code: 0 });
    });

    it("into a stream its reader has closed: the program is told, as by a broken pipe", async () => {
      const fatal = await start("exec yes");
      await once(fatal.stdout, "readable");
      fatal.stdout.destroy();
      fatal.stderr.resume();
      // Its stream is a socket: closed with something unread in it, the next write is told that first (exit code 1).
      expect([128 + 13, 1]).toContain((await fatal.exited).code);
      const told = await start("trap '' PIPE; while echo x; do :; done 2>/dev/null; exit 7");
      await once(told.stdout, "readable");
      told.stdout.destroy();
      told.stderr.resume();
      expect(await told.exited).toMatchObject({ code: 7 });
    });

    it("from a program that closes its own streams and goes on: it goes on until it is ended, and they with it", async () => {
      const running = await start("echo go; exec >&- 2>&- <&-; while :; do sleep 1; done");
      await once(running.stdout, "data");
      const ended = Promise.all(
        [running.stdout.resume(), running.stderr.resume()].map((one) => once(one, "end")),
      );
      await until(() => treeOf(running.pid, allProcesses()).length >= 4);
      await endedByKill(running);
      expect(await running.exited).toMatchObject({ signal: "SIGKILL" });
      await ended;
    });

    it("by a daemon that keeps the streams: they end with the program", async () => {
      const running = await start(
        "(setsid cat /dev/zero &) ; (setsid sh -c 'while :; do echo x >&2; done' &) ; echo go; exit 0",
      );
      await Promise.all(
        [running.stdout.resume(), running.stderr.resume()].map((stream) => once(stream, "end")),
      );
      expect(await running.exited).toMatchObject({ code: 0 });
    });
  });
});
