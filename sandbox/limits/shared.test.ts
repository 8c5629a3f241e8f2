import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { openForTest, specFor, type TestSandboxes, until } from "../testing/harness.ts";
import type { SandboxProcess } from "../types.ts";
import { cgroupMounts } from "./cgroup-files.ts";

const SPIN = "sleep 1000 & while :; do :; done";
const SPINNERS = availableParallelism() + 4;

let opened: TestSandboxes;
let mount: string | undefined;
let hogs: SandboxProcess[];

const start = async (owner: string, script = SPIN, signal?: AbortSignal) => {
  const slot = await opened.sandboxes.slots.acquire();
  const spec = specFor(slot, ["/bin/sh", "-c", script], { owner });
  return opened.sandboxes.start(spec, signal);
};

/** Whether the kernel has been asked to stop it. */
function isHeld({ pid }: SandboxProcess): boolean {
  try {
    const path = /^0::(.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, "utf8"))?.[1];
    return readFileSync(join(mount ?? "", path ?? "", "cgroup.freeze"), "utf8").trim() === "1";
  } catch {
    return false;
  }
}

const parked = () => until(() => hogs.find(isHeld));

beforeAll(async () => {
  opened = await openForTest();
  mount = (await cgroupMounts()).find(({ version }) => version === 2)?.path;
});
afterAll(() => opened?.[Symbol.asyncDispose]());

beforeEach(async (context) => {
  if (opened.sandboxes.tier === "rlimits" || mount === undefined) context.skip("nothing to stop groups by");
  hogs = await Promise.all(Array.from({ length: SPINNERS }, (_, index) => start(`hog-${index}`)));
  return async () => {
    await opened.sandboxes.run.endAll();
    expect(opened.sandboxes.run.list()).toEqual([]);
  };
});

it("[MU-3] of many that spin only some run at a time, and each has its turns", async () => {
  const had = new Map<SandboxProcess, number>();
  await until(() => hogs.filter(isHeld).length >= 4);
  for (const hog of hogs) had.set(hog, (await hog.stats()).cpuMs);
  await until(async () => {
    const now = await Promise.all(hogs.map(async (hog) => [hog, (await hog.stats()).cpuMs] as const));
    return now.every(([hog, cpuMs]) => cpuMs > (had.get(hog) ?? 0) + 50);
  });
});

it("[MU-6] a parked one can be looked at, swept, signalled and killed", async () => {
  // One that was parked before it had begun is looked at again later.
  const looked = await until(async () => {
    const hog = await parked();
    const commands = (await hog.processes()).map(({ command }) => command[0]);
    return commands.includes("sleep") && isHeld(hog) && hog;
  });
  expect((await looked.stats()).processes).toBeGreaterThanOrEqual(3);
  expect(await looked.sweep()).toBeGreaterThan(0);
  const killed = await parked();
  await killed.kill();
  expect(await killed.exited).toMatchObject({ signal: "SIGKILL" });
  hogs = hogs.filter((hog) => hog !== killed);
  const ended = await parked();
  await ended.signal("SIGTERM");
  expect(await ended.exited).toMatchObject({ code: 128 + 15 });
});

it("[MU-3] stopped by its owner it stays so when its turn comes, and goes on after", async () => {
  const first = await parked();
  await first.freeze();
  const before = (await first.stats()).cpuMs;
  const others = hogs.filter((hog) => hog !== first);
  const had = await Promise.all(others.map(async (hog) => (await hog.stats()).cpuMs));
  await until(async () => {
    const now = await Promise.all(others.map(async (hog) => (await hog.stats()).cpuMs));
    return now.every((cpuMs, index) => cpuMs > (had[index] ?? 0) + 50);
  });
  expect((await first.stats()).cpuMs - before).toBeLessThan(2);
  expect(isHeld(first)).toBe(true);
  await first.thaw();
  await until(async () => (await first.stats()).cpuMs > before + 20);
});

it("[MU-3] an owner of a parked one can start another, unless it was cancelled before", async () => {
  await parked();
  await expect(start("hog-0", "true", AbortSignal.abort())).rejects.toMatchObject({ code: "Cancelled" });
  const begun = await start("hog-0", "exit 3");
  expect(await begun.exited).toMatchObject({ code: 3 });
});
