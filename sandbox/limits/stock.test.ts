import { setTimeout as sleep } from "node:timers/promises";
import { expect, it } from "vitest";
import type { SandboxLimits } from "../types.ts";
import { GroupStock } from "./stock.ts";

const LIMITS: SandboxLimits = { memoryBytes: 1 << 26, processes: 8, fileBytes: 1 << 20, tmpBytes: 1 << 20 };

/** What a kernel would have of it: refuses a name twice, and to remove what is not there or busy. */
function kernel() {
  const made = new Set<string>();
  const ever = new Set<string>();
  const busy = new Set<string>();
  const full = { value: false };
  /** All that was ever written into each. */
  const limits = new Map<string, SandboxLimits[]>();
  const stock = new GroupStock({
    async make(name) {
      await sleep(1);
      if (full.value || ever.has(name)) throw new Error("cannot be made");
      ever.add(name);
      made.add(name);
    },
    async limit(name, wanted) {
      await sleep(1);
      if (wanted.processes < 0) throw new Error("cannot be limited");
      limits.set(name, [...(limits.get(name) ?? []), wanted]);
    },
    async remove(name) {
      await sleep(1);
      if (busy.has(name) || !made.delete(name)) throw new Error("cannot be removed");
    },
  });
  return { stock, made, ever, busy, full, limits };
}

async function until(ready: () => boolean): Promise<void> {
  for (const late = Date.now() + 10_000; !ready(); await sleep(2))
    if (Date.now() > late) throw new Error("not in time");
}

it("[MU-6] no group serves twice, and a few are made before they are asked for", async () => {
  const { stock, made, ever } = kernel();
  const seen: string[] = [];
  for (let round = 0; round < 20; round += 1) {
    const name = await stock.take(LIMITS);
    expect(made).toContain(name);
    stock.begun(name);
    seen.push(name);
    stock.giveBack(name);
  }
  expect(new Set(seen).size).toBe(seen.length);
  await until(() => seen.every((name) => !made.has(name)) && made.size > 0);
  expect(made.size).toBeLessThanOrEqual(4);
  await stock.close();
  expect(made.size).toBe(0);
  expect(ever.size).toBeLessThanOrEqual(seen.length + 4);
});

it("[MU-6] a start that does not end holds nothing up, and all that was not given back is its owner's", async () => {
  const { stock, made } = kernel();
  const first = await stock.take(LIMITS);
  const second = await stock.take(LIMITS);
  stock.giveBack(second);
  await until(() => !made.has(second));
  expect(made).toContain(first);
  stock.giveBack(first);
  await stock.close();
  expect(made.size).toBe(0);
});

it("[MU-6] what could not be removed is tried again, and told at the end", async () => {
  const { stock, made, busy } = kernel();
  const stuck = await stock.take(LIMITS);
  busy.add(stuck);
  stock.giveBack(stuck);
  const other = await stock.take(LIMITS);
  stock.giveBack(other);
  await until(() => !made.has(other));
  await expect(stock.close()).rejects.toThrow("could not be removed");
  expect([...made]).toEqual([stuck]);
});

it("[MU-6] where none can be made, who needs one is told, and others go on", async () => {
  const { stock, full, made } = kernel();
  full.value = true;
  await expect(stock.take(LIMITS)).rejects.toThrow("cannot be made");
  full.value = false;
  const name = await stock.take(LIMITS);
  expect(made).toContain(name);
  stock.giveBack(name);
  await stock.close();
  expect(made.size).toBe(0);
});

it("[MU-6] one that is ready has its limits already, and gets others where somebody wants others", async () => {
  const { stock, limits } = kernel();
  const small = { ...LIMITS, memoryBytes: 1 << 20 };
  const ready = () => until(() => [...limits.values()].flat().length > 1);
  await stock.take(LIMITS);
  await ready();
  const second = await stock.take(LIMITS);
  expect(limits.get(second)).toEqual([LIMITS]);
  const third = await stock.take(small);
  expect(limits.get(third)?.at(-1)).toEqual(small);
  await stock.close().catch(() => undefined);
});

it("[MU-6] one that cannot be limited is removed, whoever wanted it", async () => {
  const { stock, made } = kernel();
  await expect(stock.take({ ...LIMITS, processes: -1 })).rejects.toThrow("cannot be limited");
  const name = await stock.take(LIMITS);
  stock.giveBack(name);
  await stock.close();
  expect(made.size).toBe(0);
});
