import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, rm, stat } from "node:fs/promises";
import { createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { allProcesses, isRunning, type ProcessInfo, readProcess, treeOf } from "../../process-tree.ts";
import type { Sandboxes } from "../../sandboxes.ts";
import { lastJson } from "../../testing/clone.ts";
import {
  LIMITS,
  makeTemporary,
  NODE,
  openForTest,
  runNode,
  shell,
  specFor,
  type TestSandboxes,
  text,
  until,
} from "../../testing/harness.ts";
import { NASTY_TREE } from "../../testing/nasty.ts";
import type { LimitTier, SandboxProcess, SandboxSpec } from "../../types.ts";

const MIB = 1024 * 1024;

function treeBelow(pid: number): ProcessInfo[] {
  return treeOf(pid, allProcesses());
}

async function startNasty(sandboxes: Sandboxes): Promise<{ running: SandboxProcess; tree: ProcessInfo[] }> {
  const slot = await sandboxes.slots.acquire();
  const running = await sandboxes.start(specFor(slot, ["/bin/sh", "-c", NASTY_TREE]));
  await once(running.stdout, "data");
  const tree = await until(() => {
    const now = treeBelow(running.pid);
    return now.length >= 8 && now;
  });
  return { running, tree };
}

/** The best way this machine has, and the one every machine has. */
describe.each(["best", "rlimits"] as const)("with %s limits", (which) => {
  let opened: TestSandboxes;
  let sandboxes: Sandboxes;
  beforeAll(async () => {
    opened = await openForTest(which === "best" ? {} : { tier: "rlimits" satisfies LimitTier });
    sandboxes = opened.sandboxes;
  });
  afterAll(() => opened?.[Symbol.asyncDispose]());

  const started = async (argv: readonly string[], more: Partial<SandboxSpec> = {}) => {
    const slot = more.slot ?? (await sandboxes.slots.acquire());
    return { slot, running: await sandboxes.start(specFor(slot, argv, more)) };
  };

  it("[MU-6] kill leaves no process of a tree of daemons, deaf, stopped and orphaned ones", async () => {
    const { running, tree } = await startNasty(sandboxes);
    await running.kill();
    expect(tree.filter(isRunning)).toEqual([]);
    expect(await running.exited).toMatchObject({ signal: "SIGKILL" });
    await running.kill();
  });

  it("[MU-6] kill works on what is frozen", async () => {
    const { running, tree } = await startNasty(sandboxes);
    await running.freeze();
    await running.kill();
    expect(tree.filter(isRunning)).toEqual([]);
  });

  it("[MU-6] releasing a slot ends what runs in it, and only that", async () => {
    const { slot, running } = await started(["sleep", "1000"]);
    const other = await started(["sleep", "1000"]);
    await slot.release();
    expect(await running.exited).toMatchObject({ signal: "SIGKILL" });
    expect(treeBelow(other.running.pid).length).toBeGreaterThan(1);
    await expect(stat(slot.dir)).rejects.toThrow(/ENOENT/);
    await other.slot.release();
  });

  it("[MU-6] has nothing left running when the program ends by itself", async () => {
    const { slot, running } = await started(["/bin/sh", "-c", "setsid sleep 1000 & echo ready; read line"]);
    await once(running.stdout, "data");
    const tree = await until(() => treeBelow(running.pid).length >= 4 && treeBelow(running.pid));
    running.stdin.end("go\n");
    expect(await running.exited).toEqual({ code: 0, signal: null });
    expect(tree.filter(isRunning)).toEqual([]);
    await slot.release();
  });

  it("[MU-3] a program that takes too much memory is ended, and the reason named", async () => {
    const script = "const all = []; setInterval(() => all.push(Buffer.alloc(16 << 20, 1)), 10)";
    const outcome = await runNode(sandboxes, script, { limits: { ...LIMITS, memoryBytes: 200 * MIB } });
    expect(outcome).toMatchObject({ limit: "memory" });
  });

  it("[MU-3] a fork bomb stays within its bounds and can be ended", async () => {
    const bomb = "bomb() { bomb | bomb & }; echo ready; bomb; sleep 1000";
    const { slot, running } = await started(["bash", "-c", bomb], { limits: { ...LIMITS, processes: 40 } });
    await once(running.stdout, "data");
    await until(() => treeBelow(running.pid).length > 10);
    for (let look = 0; look < 30; look += 1) {
      expect(treeBelow(running.pid).length).toBeLessThanOrEqual(44);
      await sleep(20);
    }
    await running.kill();
    await slot.release();
  });

  it("[MU-3] a file beyond its limit ends the program, a full /tmp only the write", async () => {
    const limits = { ...LIMITS, fileBytes: 4 * MIB, tmpBytes: MIB };
    const big = await shell(sandboxes, "exec dd if=/dev/zero of=/dev/shm/x bs=1M count=1 seek=8", { limits });
    expect(big).toMatchObject({ code: 153, limit: "file" });
    const full = await shell(sandboxes, "dd if=/dev/zero of=/tmp/x bs=64k count=100; echo $?", { limits });
    expect(full.stderr).toMatch(/No space left/);
    expect(full).toMatchObject({ code: 0, stdout: "1\n" });
  });

  it("frozen it takes no CPU, thawed it goes on", async () => {
    const { slot, running } = await started(["/bin/sh", "-c", "echo ready; while :; do :; done"]);
    await once(running.stdout, "data");
    await until(async () => (await running.stats()).cpuMs > 20);
    await running.freeze();
    const before = await running.stats();
    await sleep(400);
    const after = await running.stats();
    expect(after.cpuMs - before.cpuMs).toBeLessThan(2);
    expect(after.memoryBytes).toBeGreaterThan(0);
    expect(after.processes).toBe(3);
    await running.thaw();
    await until(async () => (await running.stats()).cpuMs > after.cpuMs + 20);
    await slot.release();
    expect(await running.stats()).toEqual({ memoryBytes: 0, cpuMs: 0, processes: 0 });
    await running.freeze();
    await running.thaw();
  });

  it("what a program had stopped itself stays stopped after a freeze", async () => {
    const { slot, running } = await started([
      "bash",
      "-c",
      "sleep 1000 & kill -STOP $!; echo ready; read line",
    ]);
    await once(running.stdout, "data");
    const stopped = () => treeBelow(running.pid).filter(({ state }) => state === "T").length;
    await until(() => stopped() === 1);
    await running.freeze();
    await running.thaw();
    await sleep(50);
    expect(stopped()).toBe(1);
    await slot.release();
  });

  it("sweep ends what came since mark, daemons and forkers included, and nothing else", async () => {
    const { slot, running } = await started([
      "bash",
      "-c",
      'sleep 1000 & echo ready; while read -r l; do eval "$l"; done',
    ]);
    await once(running.stdout, "data");
    await running.mark();
    const before = (await until(() => treeBelow(running.pid).length === 4 && treeBelow(running.pid))).map(
      ({ pid }) => pid,
    );
    expect(await running.sweep()).toBe(0);
    const restless = "f() { (sleep 0.01; f) & }; f";
    running.stdin.write(`setsid sleep 1000 & (trap '' TERM; sleep 1000) & ${restless}; echo done\n`);
    await once(running.stdout, "data");
    expect(await running.sweep()).toBeGreaterThanOrEqual(3);
    expect(treeBelow(running.pid).map(({ pid }) => pid)).toEqual(before);
    running.stdin.write("echo still here\n");
    expect(String(await once(running.stdout, "data"))).toBe("still here\n");
    await running.freeze();
    expect(await running.sweep()).toBe(0);
    await slot.release();
  });

  it("sweep spares the bridge's open connections", async () => {
    const slot = await sandboxes.slots.acquire();
    const server = createServer((socket) => socket.pipe(socket)).listen(slot.socketPath);
    await once(server, "listening");
    const script = `console.log("ready"); let s; process.stdin.on("data", (d) => {
        s ??= require("net").connect(4010, "127.0.0.1").on("close", () => console.log("closed"))
          .on("data", (a) => process.stdout.write(a));
        s.write(d);
      });`;
    const running = await sandboxes.start(
      specFor(slot, [NODE, "-e", script], {
        bridge: { socketPath: slot.socketPath, port: 4010 },
        mounts: [{ source: process.execPath, target: NODE, mode: "ro" }],
      }),
    );
    await once(running.stdout, "data");
    await running.mark();
    running.stdin.write("first");
    expect(String(await once(running.stdout, "data"))).toBe("first");
    expect(await running.sweep()).toBe(0);
    running.stdin.write("again");
    expect(String(await once(running.stdout, "data"))).toBe("again");
    running.stdin.end();
    await slot.release();
    server.close();
  });

  it("[MU-8] output that nobody reads stops the program, not the server's memory", async () => {
    const { slot, running } = await started(["yes", "a line that says nothing at all, over and over"]);
    // It works until the kernel's buffers are full, and then no more.
    let spent = 0;
    let still = 0;
    await until(async () => {
      await sleep(100);
      const { cpuMs } = await running.stats();
      still = cpuMs - spent < 5 ? still + 1 : 0;
      spent = cpuMs;
      return still >= 4;
    });
    const memory = process.memoryUsage.rss();
    let taken = 0;
    const slowly = (async () => {
      for await (const chunk of running.stdout) {
        taken += chunk.length;
        await sleep(5);
      }
    })();
    await until(() => taken > 4 * MIB);
    expect(running.stdout.readableLength).toBeLessThanOrEqual(MIB);
    expect(process.memoryUsage.rss() - memory).toBeLessThan(64 * MIB);
    await running.kill();
    await slowly;
    await slot.release();
  });

  it("[MU-1] 20 start at once, each with its own", async () => {
    const outcomes = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        shell(sandboxes, "echo $N; ls /tmp; touch /tmp/$N", { env: { N: `${index}` } }),
      ),
    );
    expect(outcomes.map(({ stdout }) => stdout)).toEqual(outcomes.map((_, index) => `${index}\n`));
    expect(outcomes.every(({ code }) => code === 0)).toBe(true);
    expect(sandboxes.run.list()).toEqual([]);
  });

  it("[MU-6] the launcher's death ends its sandboxes and is told; the next start works", async () => {
    const first = await startNasty(sandboxes);
    const second = await started(["sleep", "1000"]);
    process.kill(sandboxes.launcherPid ?? 0, "SIGKILL");
    expect(await first.running.exited).toEqual({ code: null, signal: "SIGKILL" });
    expect(await second.running.exited).toEqual({ code: null, signal: "SIGKILL" });
    expect(first.tree.filter(isRunning)).toEqual([]);
    expect((await shell(sandboxes, "echo back")).stdout).toBe("back\n");
    await second.slot.release();
  });

  it("[MU-6] the server's SIGKILL leaves no process, and the next server no trace", async () => {
    const dataDir = await makeTemporary();
    const script = fileURLToPath(new URL("../../testing/server.ts", import.meta.url));
    const args = [script, dataDir, "3", ...(which === "best" ? [] : ["rlimits"])];
    const server: ChildProcess = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
    const ended = once(server, "exit").then(([code]) =>
      Promise.reject(new Error(`the server ended: ${code}`)),
    );
    ended.catch(() => undefined);
    const [line] = await Promise.race([once(server.stdout ?? server, "data"), ended]);
    const told = lastJson(String(line));
    const pids: number[] = told.started.map(({ pid }: { pid: number }) => pid);
    const everything = [told.launcher, ...pids].flatMap((pid) => treeBelow(pid));
    expect(everything.length).toBeGreaterThan(25);
    server.kill("SIGKILL");
    await until(() => everything.filter(isRunning).length === 0);
    expect(readProcess(told.launcher)?.state ?? "Z").toBe("Z");

    const next = await openForTest({ dataDir, ...(which === "best" ? {} : { tier: "rlimits" as const }) });
    for (const { dir } of told.started) await expect(stat(dir)).rejects.toThrow(/ENOENT/);
    expect(await readdir(`${dataDir}/sandbox`)).toHaveLength(1);
    await next[Symbol.asyncDispose]();
    expect(await readdir(dataDir)).toEqual([]);
    await rm(dataDir, { recursive: true });
  });

  it("says why when no sandbox could be made", async () => {
    const slot = await sandboxes.slots.acquire();
    const gone = specFor(slot, ["true"], { mounts: [{ source: "/no/such", target: "/x", mode: "ro" }] });
    await expect(sandboxes.start(gone)).rejects.toMatchObject({ code: "NotFound" });
    const bridge = { socketPath: slot.socketPath, port: 4010 };
    await expect(sandboxes.start(specFor(slot, ["true"], { bridge }))).rejects.toMatchObject({
      code: "NotFound",
    });
    const deep = { source: `${await slot.makeDir("a")}/b`, target: "/x", mode: "rw" as const };
    await expect(sandboxes.start(specFor(slot, ["true"], { mounts: [deep] }))).rejects.toMatchObject({
      code: "InvalidParams",
    });
    const { running } = await started(["true"], { slot, cwd: "/not/there" });
    expect(await text(running.stderr)).toMatch(/not\/there/);
    expect(await running.exited).toMatchObject({ code: 1 });
    await slot.release();
  });
});
