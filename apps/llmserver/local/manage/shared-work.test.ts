import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { Serial } from "#platform/serial.ts";
import { GivenUp, SharedWork } from "./shared-work.ts";

/** Work that ends when it is told to, or is given up. */
function shared() {
  let finish = (_: string) => {};
  const work = new SharedWork<string>(
    (signal) =>
      new Promise((resolve, reject) => {
        finish = resolve;
        signal.addEventListener("abort", () => reject(signal.reason));
      }),
  );
  return { work, finish: (value: string) => finish(value) };
}

describe("work that several wait for", () => {
  it("is done once, for all of them", async () => {
    const { work, finish } = shared();
    const all = [work.wait(), work.wait(new AbortController().signal)];
    finish("done");
    expect(await Promise.all(all)).toEqual(["done", "done"]);
    // Whoever comes later gets it, too.
    expect(await work.wait()).toBe("done");
  });

  it("goes on while anybody waits, and is given up when the last has left", async () => {
    const { work } = shared();
    const [first, second] = [new AbortController(), new AbortController()];
    const waits = [work.wait(first.signal), work.wait(second.signal)];
    first.abort(new Error("first"));
    await expect(waits[0]).rejects.toThrow("first");
    let over = false;
    void work.settled().then(() => {
      over = true;
    });
    await nextTurn();
    expect(over).toBe(false);
    second.abort(new Error("second"));
    await expect(waits[1]).rejects.toThrow("second");
    await work.settled();
    await expect(work.wait()).rejects.toThrow(GivenUp);
    await expect(work.wait(AbortSignal.abort(new Error("late")))).rejects.toThrow("late");
  });

  it("ends for everybody with the reason it was ended for", async () => {
    const { work } = shared();
    const waits = [work.wait(), work.wait()];
    work.end(new Error("no more"));
    for (const wait of waits) await expect(wait).rejects.toThrow("no more");
  });
});

describe("work one after another", () => {
  it("keeps its order, whatever fails", async () => {
    const serial = new Serial();
    const order: string[] = [];
    const slow = serial.run(async () => {
      await nextTurn();
      order.push("slow");
    });
    const failing = serial.run(async () => {
      order.push("failing");
      throw new Error("failed");
    });
    const last = serial.run(async () => {
      order.push("last");
      return 7;
    });
    await expect(failing).rejects.toThrow("failed");
    expect(await last).toBe(7);
    await slow;
    expect(order).toEqual(["slow", "failing", "last"]);
  });
});
