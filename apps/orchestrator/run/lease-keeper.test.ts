import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
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

describe("lease keeper", () => {
  it("renews several times per lease and passes a cancellation on", async () => {
    let renewals = 0;
    const { keeper, told } = keep(async () => ({ alive: true, cancel: ++renewals === 3 }));
    await sleep(260);
    keeper[Symbol.dispose]();
    expect(renewals).toBeGreaterThanOrEqual(3);
    expect(told).toEqual(["cancel"]);
    const after = renewals;
    await sleep(120);
    expect(renewals).toBe(after);
  });

  it("tells at once when the task is somebody else's", async () => {
    const { told } = keep(async () => ({ alive: false, cancel: true }));
    await sleep(100);
    expect(told).toEqual(["lost"]);
  });

  it.each([
    ["fails", () => Promise.reject(new Error("away"))],
    ["never answers", () => new Promise<never>(() => undefined)],
  ])("gives the task up after the length of the lease when renewing %s", async (_, renew) => {
    const { keeper, told } = keep(renew);
    await sleep(110);
    expect(told).toEqual([]);
    await sleep(150);
    expect(told).toEqual(["lost"]);
    keeper[Symbol.dispose]();
  });
});
