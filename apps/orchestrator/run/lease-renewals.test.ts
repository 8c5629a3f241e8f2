import { describe, expect, it } from "vitest";
import { LeaseRenewals, type Renewed } from "./lease-renewals.ts";

const KEPT: Renewed = { alive: true, cancel: false, paused: false };
const GONE: Renewed = { alive: false, cancel: false, paused: false };

/** Renewals whose statement has only `free` at once; what it was asked for is told. */
function renewals(free: readonly string[]) {
  const told: string[] = [];
  const leases = new LeaseRenewals({
    gatherMs: 1,
    some: async (asked) => {
      told.push(asked.map(({ task_id }) => task_id).join("+"));
      return new Map(asked.flatMap(({ task_id }) => (free.includes(task_id) ? [[task_id, KEPT]] : [])));
    },
    one: async (task_id, attempt) => {
      told.push(`${task_id}:${attempt}`);
      return GONE;
    },
  });
  return { leases, told };
}

describe("lease renewals", () => {
  it("asks once for all that are due, and by itself for what was not free", async () => {
    const { leases, told } = renewals(["a", "c"]);
    const answers = await Promise.all(["a", "b", "c"].map((id) => leases.renew(id, 2)));
    expect(answers).toEqual([KEPT, GONE, KEPT]);
    expect(told).toEqual(["a+b+c", "b:2"]);
  });

  it("waits for whoever has the only one", async () => {
    const { leases, told } = renewals(["a"]);
    expect(await leases.renew("a", 1)).toEqual(GONE);
    expect(await leases.renew("a", 2)).toEqual(GONE);
    expect(told).toEqual(["a:1", "a:2"]);
  });

  it("tells everybody when the database is away", async () => {
    const away = new Error("away");
    const leases = new LeaseRenewals({
      gatherMs: 1,
      some: () => Promise.reject(away),
      one: () => Promise.reject(away),
    });
    const answers = await Promise.allSettled(["a", "b"].map((id) => leases.renew(id, 1)));
    expect(answers.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
  });
});
