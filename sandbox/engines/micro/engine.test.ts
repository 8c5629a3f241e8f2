import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { findProgram } from "../../host.ts";
import { makeTemporary, openForTest, silent, type TestSandboxes } from "../../testing/harness.ts";
import { MicroEngine } from "./engine.ts";
import { whyNoImage } from "./image.ts";
import { MICRO_DEFAULTS } from "./settings.ts";
import type { Vm } from "./vm.ts";

const SLOW_MS = 400_000;
const why =
  whyNoImage() ??
  (findProgram("qemu-system-x86_64") === undefined ? "qemu-system-x86_64 is not installed" : "");

it("[SB-micro] tells why there are no machines without images, and starts none", async () => {
  await using opened = await openForTest();
  const imageDir = await makeTemporary(opened.dataDir);
  const dir = join(opened.dataDir, "micro");
  const engine = await MicroEngine.open({ host: opened.sandboxes, dir, imageDir, log: silent });
  const availability = await engine.probe();
  expect(availability).toMatchObject({ available: false, hint: expect.stringContaining("npm run micro") });
  expect(availability.reasons.join(" ")).toMatch(/microsandbox: .*qemu: The images/);
  await expect(engine.start({ image: "node" })).rejects.toMatchObject({
    code: "EngineUnavailable",
    details: { hint: availability.hint },
  });
  await engine.close();
  expect(opened.sandboxes.slots.inUse).toBe(0);
});

describe.skipIf(why !== "")(`with machines${why === "" ? "" : ` (skipped: ${why})`}`, () => {
  let opened: TestSandboxes;
  let engine: MicroEngine;
  const start = (idleMs?: number) =>
    engine.start({ image: "node", ...(idleMs === undefined ? {} : { idleMs }) });
  const works = async (vm: Vm) => String((await vm.execute({ argv: ["echo", "fine"] })).stdout);

  beforeAll(async () => {
    opened = await openForTest();
    engine = await MicroEngine.open({
      host: opened.sandboxes,
      dir: join(opened.dataDir, "micro"),
      settings: {
        maxMachines: 2,
        warm: { node: 1, python: 0 },
        snapshots: { ...MICRO_DEFAULTS.snapshots, maxCount: 1 },
      },
      log: silent,
      drivers: ["qemu"],
    });
    await engine.warmed();
  }, SLOW_MS);

  afterAll(async () => {
    await engine?.close();
    await opened?.[Symbol.asyncDispose]();
  }, SLOW_MS);

  it("[SB-micro] gives away what is ready, refills, and makes way when it is full", {
    timeout: SLOW_MS,
  }, async () => {
    expect(engine.warm).toBe(1);
    expect(engine.list()).toEqual([]);
    const first = await start();
    await engine.warmed();
    expect(engine.warm).toBe(1);
    const second = await start();
    await engine.warmed();
    // Two are in use, so there is no room for a spare one.
    expect(engine.warm).toBe(0);
    expect(engine.list()).toEqual([first, second]);
    await expect(start()).rejects.toMatchObject({
      code: "Unavailable",
      details: { retry_after_seconds: expect.any(Number) },
    });
    expect(await Promise.all([works(first), works(second)])).toEqual(["fine\n", "fine\n"]);
    await Promise.all([first.close(), second.close()]);
    // Closing twice is closing.
    await first.close();
    expect(engine.list()).toEqual([]);
  });

  it("[SB-micro] keeps a machine's files in a snapshot, and bounds their number", {
    timeout: SLOW_MS,
  }, async () => {
    const vm = await start();
    const running = vm.execute({ argv: ["sh", "-c", "echo kept > /work/file; sleep 2"] });
    await expect(vm.snapshot()).rejects.toMatchObject({ code: "Conflict" });
    await running;
    const id = await vm.snapshot();
    await expect(vm.snapshot()).rejects.toMatchObject({ code: "QuotaExceeded" });
    expect(engine.snapshots().map((each) => each.id)).toEqual([id]);
    await vm.execute({ argv: ["rm", "/work/file"] });
    await vm.close();
    const again = await engine.restore(id);
    expect(String((await again.execute({ argv: ["cat", "/work/file"] })).stdout)).toBe("kept\n");
    await engine.deleteSnapshot(id);
    expect(await works(again)).toBe("fine\n");
    await again.close();
    await expect(engine.restore(id)).rejects.toMatchObject({ code: "NotFound" });
    expect(await readdir(join(opened.dataDir, "micro", "snapshots"))).toEqual([]);
  });

  it("[SB-micro] ends a machine that nobody uses", { timeout: SLOW_MS }, async () => {
    const vm = await start(1000);
    await vm.execute({ argv: ["sleep", "2"] });
    expect(await vm.exited).toEqual({ reason: "idle" });
    await expect(vm.execute({ argv: ["true"] })).rejects.toMatchObject({ code: "Unavailable" });
    expect(engine.list()).not.toContain(vm);
  });
});
