import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { openForTest, specFor, type TestSandboxes, until } from "../testing/harness.ts";
import type { SandboxProcess } from "../types.ts";
import { cgroupMounts } from "./cgroup-files.ts";
import { FIRST_WEIGHT, LAST_WEIGHT } from "./credit.ts";

let opened: TestSandboxes;
beforeAll(async () => {
  opened = await openForTest();
});
afterAll(() => opened?.[Symbol.asyncDispose]());

async function start(script: string): Promise<SandboxProcess> {
  const slot = await opened.sandboxes.slots.acquire();
  return opened.sandboxes.start(specFor(slot, ["/bin/sh", "-c", script]));
}

/** What the kernel weighs it by, as control groups v2 count. */
async function weightOf({ pid }: SandboxProcess): Promise<number> {
  const groups = readFileSync(`/proc/${pid}/cgroup`, "utf8").split("\n");
  const pathOf = (pattern: RegExp) => groups.find((line) => pattern.test(line))?.replace(/^\d+:[^:]*:/, "");
  const first = (await cgroupMounts()).find(({ controllers }) => controllers.includes("cpu"));
  if (first !== undefined) {
    return (
      (Number(readFileSync(join(first.path, pathOf(/:cpu(,|:)|,cpu:/) ?? "", "cpu.shares"))) * 100) / 1024
    );
  }
  const second = (await cgroupMounts()).find(({ version }) => version === 2);
  return Number(readFileSync(join(second?.path ?? "", pathOf(/^0:/) ?? "", "cpu.weight"), "utf8"));
}

it("[MU-3] who takes all the CPU goes last until it is calm again; who asks for little, first", async (context) => {
  if (opened.sandboxes.tier === "rlimits") context.skip("no control group to weigh by");
  const calm = await start("while :; do sleep 1; done");
  const busy = await start("while :; do :; done");
  const weight = await weightOf(calm).catch(() => context.skip("the cpu controller is not ours"));
  expect(weight).toBe(FIRST_WEIGHT);
  await until(async () => (await weightOf(busy)) === LAST_WEIGHT);
  expect(await weightOf(calm)).toBe(FIRST_WEIGHT);
  await busy.freeze();
  await until(async () => (await weightOf(busy)) === FIRST_WEIGHT);
  await Promise.all([calm.kill(), busy.kill()]);
});
