import { expect, it } from "vitest";
import { silent } from "../../testing/harness.ts";
import type { DriverVm, MicroImageName, VmExit } from "./driver.ts";
import { WarmPool } from "./pool.ts";

/** A machine that only is there, or is not any more. */
class StandIn implements DriverVm {
  readonly #end = Promise.withResolvers<VmExit>();
  readonly exited = this.#end.promise;
  works = true;
  stopped = false;

  execute = () => Promise.reject(new Error("nothing runs in it"));
  snapshot = () => Promise.reject(new Error("nothing to keep"));
  stats = () => Promise.resolve({ memoryBytes: 0, cpuMs: 0, processes: 0 });
  ping = () => Promise.resolve(this.works);
  stop = () => {
    this.stopped = true;
    this.#end.resolve({ reason: "stopped" });
    return Promise.resolve();
  };
}

function poolOf(wanted: Record<MicroImageName, number>, more: { room?: number; free?: () => number } = {}) {
  const made: StandIn[] = [];
  let making = 0;
  let most = 0;
  const pool = new WarmPool({
    wanted,
    reserveBytes: 100,
    freeBytes: more.free ?? (() => 1000),
    log: silent,
    make: async () => {
      if (made.length >= (more.room ?? 100)) return undefined;
      making += 1;
      most = Math.max(most, making);
      await new Promise((resolve) => setImmediate(resolve));
      making -= 1;
      const vm = new StandIn();
      made.push(vm);
      return vm;
    },
  });
  return { pool, made, atOnce: () => most };
}

it("fills itself one at a time, and gives each away once", async () => {
  const { pool, made, atOnce } = poolOf({ node: 2, python: 1 });
  await pool.settled();
  expect(pool.size).toBe(3);
  const taken = [await pool.take("node"), await pool.take("node"), await pool.take("python")];
  expect(new Set(taken).size).toBe(3);
  await pool.settled();
  expect(pool.size).toBe(3);
  expect(made).toHaveLength(6);
  expect(atOnce()).toBe(1);
  await pool.close();
  expect(made.map(({ stopped }) => stopped)).toEqual(made.map((vm) => !taken.includes(vm)));
});

it("gives nothing that does not answer, and nothing that has ended", async () => {
  const { pool, made } = poolOf({ node: 2, python: 0 }, { room: 2 });
  await pool.settled();
  const [silentOne, ended] = made;
  if (silentOne !== undefined) silentOne.works = false;
  await ended?.stop();
  await ended?.exited;
  expect(pool.size).toBe(1);
  expect(await pool.take("node")).toBeUndefined();
  expect(await pool.take("python")).toBeUndefined();
  await pool.close();
});

it("lets its machines go when memory gets scarce, and comes back when it is not", async () => {
  let free = 1000;
  const { pool, made } = poolOf({ node: 1, python: 1 }, { free: () => free });
  await pool.settled();
  free = 50;
  pool.check();
  await pool.settled();
  expect(pool.size).toBe(0);
  expect(made.every(({ stopped }) => stopped)).toBe(true);
  free = 1000;
  pool.check();
  await pool.settled();
  expect(pool.size).toBe(2);
  await pool.close();
  expect(await pool.take("node")).toBeUndefined();
});

it("makes room on demand, and goes on without when no machine can be made", async () => {
  const { pool } = poolOf({ node: 1, python: 0 });
  await pool.settled();
  expect(await pool.giveUp()).toBe(true);
  expect(await pool.giveUp()).toBe(false);
  await pool.close();
  let tries = 0;
  const broken = new WarmPool({
    wanted: { node: 1, python: 0 },
    reserveBytes: 0,
    freeBytes: () => 1,
    log: silent,
    make: () => {
      tries += 1;
      return Promise.reject(new Error("no"));
    },
  });
  await broken.settled();
  broken.check();
  await broken.settled();
  // Not again at once.
  expect(tries).toBe(1);
  await broken.close();
});
