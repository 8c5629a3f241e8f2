import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { PauseGate } from "./pause-gate.ts";
import { Watchdog } from "./watchdog.ts";

/** What a watchdog with these limits has called so far. */
function watch(limits: { timeoutMs: number; silenceMs: number; tool?: boolean }) {
  const struck: string[] = [];
  const dog = new Watchdog({
    ...limits,
    toolRunning: () => limits.tool === true,
    onTimeout: () => struck.push("timeout"),
    onSilence: () => struck.push("silence"),
  });
  return { dog, struck };
}

const until = async (condition: () => boolean) => {
  while (!condition()) await sleep(5);
};

describe("watchdog", () => {
  it("[MU-3] strikes after silence, and after the time a run may take", async () => {
    const silent = watch({ timeoutMs: 60_000, silenceMs: 100 });
    using _silent = silent.dog;
    await until(() => silent.struck.length > 0);
    expect(silent.struck[0]).toBe("silence");
    const long = watch({ timeoutMs: 200, silenceMs: 60_000 });
    using _long = long.dog;
    await until(() => long.struck.length > 0);
    expect(long.struck[0]).toBe("timeout");
  });

  it("takes a tool at work for a sign of life, and what says nothing by its nature", async () => {
    const tool = watch({ timeoutMs: 400, silenceMs: 100, tool: true });
    using _tool = tool.dog;
    await until(() => tool.struck.length > 0);
    expect(tool.struck).not.toContain("silence");
    const busy = watch({ timeoutMs: 400, silenceMs: 100 });
    using _busy = busy.dog;
    busy.dog.busy = true;
    await until(() => busy.struck.length > 0);
    expect(busy.struck).not.toContain("silence");
  });

  it("stands still while the run is paused", async () => {
    const { dog, struck } = watch({ timeoutMs: 150, silenceMs: 100 });
    using _dog = dog;
    dog.paused = true;
    await sleep(400);
    expect(struck).toEqual([]);
    dog.paused = false;
    await until(() => struck.length > 0);
  });
});

describe("pause gate", () => {
  it("holds whoever comes while it is closed, and tells of changes only", async () => {
    const changes: boolean[] = [];
    const gate = new PauseGate((paused) => changes.push(paused));
    const { signal } = new AbortController();
    await gate.pass(signal);
    gate.set(true);
    gate.set(true);
    const order: string[] = [];
    const passed = gate.pass(signal).then(() => order.push("passed"));
    await sleep(20);
    order.push("resumed");
    gate.set(false);
    await passed;
    expect(order).toEqual(["resumed", "passed"]);
    expect(changes).toEqual([true, false]);
  });

  it("counts all pauses together, and nothing between them", async () => {
    const gate = new PauseGate(() => undefined);
    expect(gate.pausedMs).toBe(0);
    gate.set(true);
    await sleep(20);
    gate.set(false);
    const first = gate.pausedMs;
    expect(first).toBeGreaterThan(0);
    await sleep(20);
    expect(gate.pausedMs).toBe(first);
    gate.set(true);
    await sleep(20);
    expect(gate.pausedMs).toBeGreaterThan(first);
  });

  it("lets go of who is told to stop, paused or not", async () => {
    const gate = new PauseGate(() => undefined);
    const stop = new AbortController();
    gate.set(true);
    const held = gate.pass(stop.signal);
    stop.abort(new Error("stop"));
    await expect(held).rejects.toThrow("stop");
    await expect(gate.pass(stop.signal)).rejects.toThrow("stop");
    gate.set(false);
    await expect(gate.pass(stop.signal)).rejects.toThrow("stop");
  });
});
