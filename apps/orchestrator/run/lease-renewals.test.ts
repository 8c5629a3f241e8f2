import { describe, expect, it } from "vitest";
import type { Renewed } from "#database/queue/index.ts";
import { LeaseRenewals } from "./lease-renewals.ts";

const KEPT: Renewed = { alive: true, cancel: false, paused: false };
const GONE: Renewed = { alive: false, cancel: false, paused: false };

/** Renewals whose statement knows nothing of `busy` the first time; what it was asked for is told. */
function renewals(busy: string) {
  const told: string[] = [];
  const leases = new LeaseRenewals({
    gatherMs: 1,
    some: async (asked) => {
      const known = asked.filter(({ task_id }) => told.length > 0 || task_id !== busy);
      told.push(asked.map(({ task_id, attempt }) => `${task_id}${attempt}`).join("+"));
      return known.map((lease) => ({ ...lease, ...(lease.attempt === 1 ? KEPT : GONE) }));
    },
  });
  return { leases, told };
}

describe("lease renewals", () => {
  it("asks once for all that are due, and again for what somebody had", async () => {
    const { leases, told } = renewals("b");
    const asked = [leases.renew("a", 1), leases.renew("b", 1), leases.renew("a", 2)];
    expect(await Promise.all(asked)).toMatchObject([KEPT, KEPT, GONE]);
    expect(told).toEqual(["a1+b1+a2", "b1"]);
  });

  it("tells everybody when the database is away", async () => {
    const leases = new LeaseRenewals({ gatherMs: 1, some: () => Promise.reject(new Error("away")) });
    const answers = await Promise.allSettled(["a", "b"].map((id) => leases.renew(id, 1)));
    expect(answers.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
  });
});
