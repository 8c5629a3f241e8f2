import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { LeaseKeeper } from "./lease-keeper.ts";

function keep(renew: () => Promise<{ alive: boolean; cancel: boolean }>, leaseMs = 150) {
  const told: string[] = [];
  const keeper = new LeaseKeeper({
    leaseMs,
    renew,
    onLost: () => told.push("lost"),
    onCancel: () => told.push("cancel"),
  });
  return { keeper, told };
}

/** Let so much time go by, and everything happen that it brings about, ms. */
const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);

describe("lease keeper", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it("renews several times per lease and passes a cancellation on", async () => {
    let renewals = 0;
    const { keeper, told } = keep(async () => ({ alive: true, cancel: ++renewals === 3 }));
    await pass(260);
    keeper[Symbol.dispose]();
    expect(renewals).toBeGreaterThanOrEqual(3);
    expect(told).toEqual(["cancel"]);
    const after = renewals;
    await pass(120);
    expect(renewals).toBe(after);
  });

  it("tells at once when the task is somebody else's", async () => {
    const { told } = keep(async () => ({ alive: false, cancel: true }));
    await pass(100);
    expect(told).toEqual(["lost"]);
  });

  it.each([
    ["fails", () => Promise.reject(new Error("away"))],
    ["never answers", () => new Promise<never>(() => undefined)],
  ])("gives the task up after the length of the lease when renewing %s", async (_, renew) => {
    const { keeper, told } = keep(renew);
    await pass(110);
    expect(told).toEqual([]);
    await pass(150);
    expect(told).toEqual(["lost"]);
    keeper[Symbol.dispose]();
  });
});
