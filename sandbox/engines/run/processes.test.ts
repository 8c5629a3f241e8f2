import { once } from "node:events";
import { createServer } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { isRunning, readProcess } from "../../process-tree.ts";
import { openForTest, specFor, type TestSandboxes, until } from "../../testing/harness.ts";
import type { ProcessEntry, SandboxProcess, SandboxSpec } from "../../types.ts";

describe.each(["best", "rlimits"] as const)("[SB-run] processes, with %s limits", (which) => {
  let opened: TestSandboxes;
  beforeAll(async () => {
    opened = await openForTest(which === "best" ? {} : { tier: "rlimits" });
  });
  afterAll(() => opened?.[Symbol.asyncDispose]());

  /** A shell that has said "ready", and what it started. */
  async function start(script: string, more: Partial<SandboxSpec> = {}) {
    const slot = more.slot ?? (await opened.sandboxes.slots.acquire());
    const running = await opened.sandboxes.start(specFor(slot, ["bash", "-c", script], more));
    await once(running.stdout, "data");
    return { slot, running };
  }

  const listed = (running: SandboxProcess, count: number): Promise<ProcessEntry[]> =>
    until(async () => {
      const now = await running.processes();
      // A child is a copy of its shell until it becomes its program.
      const complete = now.length === count && now.every(({ command }) => command.length > 1);
      return complete && now.filter(({ command }) => command[0] === "bash").length === 1 && now;
    });

  it("are listed as the program itself sees them, oldest first", async () => {
    const before = Date.now();
    const script = "sleep 1000 & (exec -a 'a name' sleep 2000) & echo ready; wait";
    const { slot, running } = await start(script, { env: { SECRET: "canary" } });
    const list = await listed(running, 3);
    const [shell, ...children] = list;
    expect(shell).toMatchObject({ pid: 2, ppid: 1, command: ["bash", "-c", script] });
    expect(shell?.memoryBytes).toBeGreaterThan(0);
    const commands = children.map(({ command }) => command.join("|")).sort();
    expect(commands).toEqual(["a name|2000", "sleep|1000"]);
    for (const { ppid, hostPid, memoryBytes, cpuMs, startedAt } of children) {
      expect(ppid).toBe(2);
      expect(readProcess(hostPid)?.ppid).toBe(shell?.hostPid);
      expect(memoryBytes).toBeGreaterThanOrEqual(0);
      expect(cpuMs).toBeGreaterThanOrEqual(0);
      // The kernel counts in hundredths of a second.
      expect(startedAt).toBeGreaterThan(before - 1000);
      expect(startedAt).toBeLessThan(Date.now() + 1000);
    }
    expect(JSON.stringify(list)).not.toContain("canary");
    await slot.release();
    expect(await running.processes()).toEqual([]);
  });

  it("are signalled by the number they have inside", async () => {
    const { slot, running } = await start("sleep 1000 & sleep 2000 & echo ready; wait; exit 5");
    const list = await listed(running, 3);
    const first = list.find(({ command }) => command[1] === "1000");
    const second = list.find(({ command }) => command[1] === "2000");
    await running.signalProcess(first?.pid ?? 0, "SIGSTOP");
    await until(async () =>
      (await running.processes()).some(({ pid, state }) => pid === first?.pid && state === "T"),
    );
    await running.signalProcess(first?.pid ?? 0, "SIGKILL");
    await until(async () => (await running.processes()).length === 2);
    await expect(running.signalProcess(first?.pid ?? 0, "SIGKILL")).rejects.toMatchObject({
      code: "NotFound",
    });
    await running.signalProcess(second?.pid ?? 0, "SIGTERM");
    expect(await running.exited).toEqual({ code: 5, signal: null });
    await expect(running.signalProcess(2, "SIGTERM")).rejects.toMatchObject({
      code: "NotFound",
      details: { hint: expect.any(String) },
    });
    await slot.release();
  });

  it("of another sandbox, of the host and of the sandbox itself are out of reach", async () => {
    const script = "sleep 1000 & sleep 1000 & sleep 1000 & echo ready; wait";
    const [mine, other] = await Promise.all([start("echo ready; exec sleep 1000"), start(script)]);
    const theirs = await listed(other.running, 4);
    const strangers = [process.pid, mine.running.pid, other.running.pid, 1, 0, -1, -2, 2.5, Number.NaN];
    for (const pid of [
      ...strangers,
      ...theirs.flatMap(({ pid, hostPid }) => (pid === 2 ? [hostPid] : [pid, hostPid])),
    ]) {
      await expect(mine.running.signalProcess(pid, "SIGKILL")).rejects.toMatchObject({ code: "NotFound" });
    }
    expect(await other.running.processes()).toHaveLength(4);
    expect((await mine.running.processes()).map(({ pid }) => pid)).toEqual([2]);
    await Promise.all([mine.slot.release(), other.slot.release()]);
  });

  it("do not include the bridge, nor whatever calls itself so", async () => {
    const slot = await opened.sandboxes.slots.acquire();
    const server = createServer((socket) => socket.pipe(socket)).listen(slot.socketPath);
    await once(server, "listening");
    const script =
      "exec 3<>/dev/tcp/127.0.0.1/4010; echo hello >&3; read -r line <&3; echo $line; read -r line";
    const bridge = { socketPath: slot.socketPath, port: 4010 };
    const { running } = await start(script, { slot, bridge });
    expect((await running.processes()).map(({ pid }) => pid)).toEqual([2]);
    await expect(running.signalProcess(4, "SIGKILL")).rejects.toMatchObject({ code: "NotFound" });
    expect(await running.signal("SIGCONT")).toBe(1);
    await slot.release();
    server.close();

    const claims = "(exec -a socat sleep 1000) & (exec -a socat sleep 1000) & echo ready; wait";
    const liar = await start(claims);
    expect(await listed(liar.running, 3)).toHaveLength(3);
    await liar.slot.release();
  });

  it("can be signalled while they are frozen, and hear it afterwards", async () => {
    const { slot, running } = await start(
      "trap 'echo heard; exit 6' USR1; echo ready; while :; do sleep 0.05; done",
    );
    await running.freeze();
    await running.signalProcess(2, "SIGUSR1");
    const [shell] = await running.processes();
    expect(isRunning(readProcess(shell?.hostPid ?? 0) ?? { pid: 0, started: "" })).toBe(true);
    await running.thaw();
    expect(await running.exited).toMatchObject({ code: 6 });
    await slot.release();
  });
});
