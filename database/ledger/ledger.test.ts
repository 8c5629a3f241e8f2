import fc from "fast-check";
import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  auditLedger,
  balanceOf,
  type Claim,
  claimTask,
  finishTask,
  heartbeat,
  listEntries,
  openCall,
  reapExpired,
  releaseCall,
  removeInstance,
  requestCancel,
  requeueTask,
  type Settlement,
  settleCall,
  sweepOpenCalls,
  type TaskRow,
} from "#database";
import { newId } from "#platform/ids.ts";
import { AppError } from "#schemas";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { addTask, addUser } from "#tests/support/queue.ts";

let test: TestDatabase;
beforeAll(async () => {
  test = await testDatabase();
});
afterAll(() => test[Symbol.asyncDispose]());

const claim: Claim = { worker_id: "w1", capacity: 1000, per_user: 1, seconds_between: 0, lease_ms: 60_000 };

function call(user_id: string, hold: number, task?: TaskRow) {
  const owned = task === undefined ? {} : { task: { task_id: task.id, attempt: task.attempt } };
  return { call_id: newId("call"), user_id, model: "m", instance_id: "i1", hold, ...owned };
}

function settlement(call_id: string, cost: number): Settlement {
  const tokens = { input_tokens: 10, output_tokens: 5, cached_tokens: 0 };
  return { call_id, ...tokens, cost, counted_by: "provider", endpoint: "/v1/chat/completions" };
}

async function running(user: string, budget: number): Promise<TaskRow> {
  const { db } = test.database;
  const task = await addTask(db, user, { budget });
  return (await claimTask(db, claim)) ?? task;
}

async function audited(): Promise<void> {
  expect(await auditLedger(test.database.db)).toEqual({ users_off: [] });
}

describe("a call on the account", () => {
  it("[US-3] holds, charges what was used and gives back the rest", async () => {
    const { db } = test.database;
    const user = await addUser(db, 1000);
    const held = call(user, 600);
    await openCall(db, held);
    await openCall(db, held);
    expect(await balanceOf(db, user)).toEqual({ balance_microcredits: 1000, held_microcredits: 600 });
    await expect(openCall(db, call(user, 401))).rejects.toMatchObject({
      code: "InsufficientBalance",
      details: { available_microcredits: 400, required_microcredits: 401 },
    });
    expect(await settleCall(db, settlement(held.call_id, 150))).toEqual({
      settled: true,
      charged: 150,
      uncollected: 0,
    });
    expect(await settleCall(db, settlement(held.call_id, 999))).toEqual({
      settled: false,
      charged: 150,
      uncollected: 0,
    });
    expect(await releaseCall(db, held.call_id)).toBe(false);
    expect(await balanceOf(db, user)).toEqual({ balance_microcredits: 850, held_microcredits: 0 });
    await audited();
  });

  it("charges more than the hold from the free balance, never below zero, and notes the rest", async () => {
    const { db } = test.database;
    const user = await addUser(db, 100);
    const [first, second] = [call(user, 10), call(user, 60)];
    await openCall(db, first);
    await openCall(db, second);
    expect(await settleCall(db, settlement(first.call_id, 55))).toEqual({
      settled: true,
      charged: 40,
      uncollected: 15,
    });
    expect(await balanceOf(db, user)).toEqual({ balance_microcredits: 60, held_microcredits: 60 });
    const { entries } = await listEntries(db, { user_id: user, limit: 1 });
    expect(entries[0]).toMatchObject({ kind: "settle", balance_delta: -40, held_delta: -10 });
    expect(entries[0]?.note).toBe("uncollected 15 of 55");
    await releaseCall(db, second.call_id);
    await audited();
  });

  it("is charged though it was released first, when its money is still there", async () => {
    const { db } = test.database;
    const user = await addUser(db, 100);
    const held = call(user, 100);
    await openCall(db, held);
    expect(await releaseCall(db, held.call_id)).toBe(true);
    expect(await releaseCall(db, held.call_id)).toBe(false);
    expect(await settleCall(db, settlement(held.call_id, 30))).toMatchObject({ settled: true, charged: 30 });
    expect(await balanceOf(db, user)).toEqual({ balance_microcredits: 70, held_microcredits: 0 });
    await audited();
  });

  it("may be free of charge", async () => {
    const { db } = test.database;
    const user = await addUser(db, 0);
    const [used, unused] = [call(user, 0), call(user, 0)];
    await openCall(db, used);
    await openCall(db, unused);
    expect(await settleCall(db, settlement(used.call_id, 0))).toMatchObject({ settled: true, charged: 0 });
    expect(await releaseCall(db, unused.call_id)).toBe(true);
    await audited();
  });

  it("refuses what cannot be", async () => {
    const { db } = test.database;
    const user = await addUser(db, 100);
    const held = call(user, 1);
    await openCall(db, held);
    await expect(openCall(db, call("usr_none", 1))).rejects.toMatchObject({ code: "NotFound" });
    await expect(openCall(db, { ...held, user_id: await addUser(db, 5) })).rejects.toMatchObject({
      code: "Conflict",
    });
    await expect(openCall(db, call(user, -1))).rejects.toThrow(RangeError);
    await expect(settleCall(db, settlement("llm_none", 1))).rejects.toMatchObject({ code: "NotFound" });
    await expect(settleCall(db, settlement(held.call_id, 0.5))).rejects.toThrow(RangeError);
    await expect(balanceOf(db, "usr_none")).rejects.toMatchObject({ code: "NotFound" });
    expect(await releaseCall(db, "llm_none")).toBe(false);
    await releaseCall(db, held.call_id);
    await expect(openCall(db, held)).rejects.toMatchObject({ code: "Conflict" });
    await audited();
  });
});

describe("racing calls", () => {
  it("[US-3] a balance of 1 and 100 calls at once: one is opened, nothing is overspent", async () => {
    const { db } = test.database;
    const user = await addUser(db, 1);
    const results = await Promise.allSettled(Array.from({ length: 100 }, () => openCall(db, call(user, 1))));
    expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    for (const result of results) {
      if (result.status === "rejected") expect((result.reason as AppError).code).toBe("InsufficientBalance");
    }
    expect(await balanceOf(db, user)).toEqual({ balance_microcredits: 1, held_microcredits: 1 });
    await audited();
  });

  it("the same call opened and settled by many at once counts once", async () => {
    const { db } = test.database;
    const user = await addUser(db, 1000);
    const held = call(user, 100);
    const opened = await Promise.allSettled(Array.from({ length: 10 }, () => openCall(db, held)));
    expect(opened.some(({ status }) => status === "fulfilled")).toBe(true);
    expect((await balanceOf(db, user)).held_microcredits).toBe(100);
    const settled = await Promise.all([
      ...Array.from({ length: 10 }, () => settleCall(db, settlement(held.call_id, 40))),
      releaseCall(db, held.call_id),
    ]);
    expect(settled.filter((result) => typeof result === "object" && result.settled)).toHaveLength(1);
    expect(await balanceOf(db, user)).toEqual({ balance_microcredits: 960, held_microcredits: 0 });
    await audited();
  });
});

describe("a call for a task", () => {
  it("[US-3] takes from the task's budget only, and what is left stays with the task", async () => {
    const { db } = test.database;
    const user = await addUser(db, 10_000);
    const task = await running(user, 500);
    const held = call(user, 400, task);
    await openCall(db, held);
    await expect(openCall(db, call(user, 101, task))).rejects.toMatchObject({
      code: "InsufficientBalance",
      details: { available_microcredits: 100 },
    });
    expect((await balanceOf(db, user)).held_microcredits).toBe(500);
    await settleCall(db, settlement(held.call_id, 50));
    await openCall(db, call(user, 450, task));
    await expect(openCall(db, call(await addUser(db), 1, task))).rejects.toMatchObject({ code: "NotFound" });
    await finishTask(db, { task_id: task.id, attempt: 1, state: "completed" });
    expect(await sweepOpenCalls(db, { instance_id: "i1", older_than_ms: 0 })).toBeGreaterThan(0);
    expect(await balanceOf(db, user)).toEqual({ balance_microcredits: 9950, held_microcredits: 0 });
    await audited();
  });

  it("settles after the task's end against the account", async () => {
    const { db } = test.database;
    const user = await addUser(db, 1000);
    const task = await running(user, 500);
    const [used, unused, over] = [call(user, 200, task), call(user, 100, task), call(user, 50, task)];
    for (const one of [used, unused, over]) await openCall(db, one);
    await finishTask(db, { task_id: task.id, attempt: 1, state: "failed" });
    expect((await balanceOf(db, user)).held_microcredits).toBe(350);
    await settleCall(db, settlement(used.call_id, 150));
    await releaseCall(db, unused.call_id);
    expect(await settleCall(db, settlement(over.call_id, 60))).toMatchObject({ charged: 60, uncollected: 0 });
    expect(await balanceOf(db, user)).toEqual({ balance_microcredits: 790, held_microcredits: 0 });
    await audited();
  });

  it("that costs more than it held takes the rest from the budget, then from the account", async () => {
    const { db } = test.database;
    const user = await addUser(db, 120);
    const task = await running(user, 100);
    const held = call(user, 30, task);
    await openCall(db, held);
    expect(await settleCall(db, settlement(held.call_id, 130))).toEqual({
      settled: true,
      charged: 120,
      uncollected: 10,
    });
    expect(await balanceOf(db, user)).toEqual({ balance_microcredits: 0, held_microcredits: 0 });
    await finishTask(db, { task_id: task.id, attempt: 1, state: "completed" });
    await audited();
  });
});

describe("sweepOpenCalls", () => {
  it("releases the calls of processes that died, and no others", async () => {
    const { db } = test.database;
    const user = await addUser(db, 1000);
    await heartbeat(db, { id: "alive", capacity: 1 });
    await openCall(db, { ...call(user, 10), instance_id: "alive" });
    await openCall(db, { ...call(user, 20), instance_id: "dead" });
    expect(await sweepOpenCalls(db, { older_than_ms: 60_000 })).toBe(0);
    expect(await sweepOpenCalls(db, { instance_id: "other", older_than_ms: 0 })).toBe(0);
    expect(await sweepOpenCalls(db, { older_than_ms: 0 })).toBeGreaterThanOrEqual(1);
    expect((await balanceOf(db, user)).held_microcredits).toBe(10);
    expect(await sweepOpenCalls(db, { instance_id: "alive", older_than_ms: 0 })).toBe(1);
    expect((await balanceOf(db, user)).held_microcredits).toBe(0);
    await removeInstance(db, "alive");
    await audited();
  });
});

describe("listEntries", () => {
  it("[DB-6] pages from new to old, and the sums are the balance", async () => {
    const { db } = test.database;
    const user = await addUser(db, 1000);
    const task = await running(user, 300);
    const held = call(user, 100, task);
    await openCall(db, held);
    await settleCall(db, settlement(held.call_id, 60));
    await finishTask(db, { task_id: task.id, attempt: 1, state: "completed" });
    const all = [];
    let cursor: string | undefined;
    do {
      const page = await listEntries(db, { user_id: user, limit: 2, cursor });
      all.push(...page.entries);
      cursor = page.next_cursor;
    } while (cursor !== undefined);
    expect(all.map(({ kind, balance_delta, held_delta }) => [kind, balance_delta, held_delta])).toEqual([
      ["release", 0, -240],
      ["settle", -60, -60],
      ["hold", 0, 300],
      ["grant", 1000, 0],
    ]);
    const ofTask = await listEntries(db, { user_id: user, task_id: task.id, limit: 10 });
    expect(ofTask.entries).toHaveLength(3);
    await expect(listEntries(db, { user_id: user, limit: 1, cursor: "x" })).rejects.toMatchObject({
      code: "InvalidParams",
    });
  });
});

describe("auditLedger", () => {
  it("finds an account that does not add up", async () => {
    const { db } = test.database;
    const user = await addUser(db, 50);
    await sql`UPDATE users SET token_balance = 51 WHERE id = ${user}`.execute(db);
    expect(await auditLedger(db)).toEqual({
      users_off: [expect.objectContaining({ user_id: user, balance: 51, entries_balance: 50 })],
    });
    await sql`UPDATE users SET token_balance = 50 WHERE id = ${user}`.execute(db);
    await audited();
  });
});

type Step =
  | { do: "open"; hold: number; forTask: boolean }
  | { do: "settle" | "release"; which: number; cost: number }
  | { do: "enqueue"; budget: number }
  | { do: "claim" | "finish" | "requeue" | "reap" | "cancel" };

const amount = fc.integer({ min: 0, max: 60 });
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant("open" as const), hold: amount, forTask: fc.boolean() }),
  },
  {
    weight: 5,
    arbitrary: fc.record({ do: fc.constantFrom("settle", "release"), which: fc.nat(20), cost: amount }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant("enqueue" as const), budget: fc.integer({ min: 1, max: 90 }) }),
  },
  {
    weight: 5,
    arbitrary: fc.record({ do: fc.constantFrom("claim", "claim", "finish", "requeue", "reap", "cancel") }),
  },
);

/** One user's doings; every step may be refused, none may put the account off. */
class Model {
  readonly #calls: string[] = [];
  readonly #user: string;
  #task: TaskRow | undefined;

  constructor(user: string) {
    this.#user = user;
  }

  async run(one: Step): Promise<void> {
    try {
      await this.#try(one);
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
      expect(["InsufficientBalance", "Cancelled", "NotFound"]).toContain(error.code);
    }
  }

  async #try(one: Step): Promise<void> {
    const { db } = test.database;
    const task = this.#task;
    if (one.do === "open") {
      const next = call(this.#user, one.hold, one.forTask ? task : undefined);
      this.#calls.push(next.call_id);
      await openCall(db, next);
    } else if (one.do === "settle" || one.do === "release") {
      const id = this.#calls[one.which % Math.max(1, this.#calls.length)] ?? "llm_none";
      await (one.do === "settle" ? settleCall(db, settlement(id, one.cost)) : releaseCall(db, id));
    } else if (one.do === "enqueue") {
      await addTask(db, this.#user, { budget: one.budget });
    } else if (one.do === "claim") {
      this.#task = (await claimTask(db, claim)) ?? task;
    } else if (one.do === "reap") {
      await sql`UPDATE tasks SET lease_until = now() - interval '1 s' WHERE state = 'running'`.execute(db);
      await reapExpired(db);
    } else if (task !== undefined) {
      const { id, attempt } = task;
      if (one.do === "finish") await finishTask(db, { task_id: id, attempt, state: "completed" });
      if (one.do === "requeue") await requeueTask(db, id, attempt, { delay_ms: 0, note: "x" });
      if (one.do === "cancel") await requestCancel(db, "admin", id);
    }
  }
}

describe("whatever the order", () => {
  const steps = fc.array(step, { minLength: 5, maxLength: 30 });

  async function clear(): Promise<void> {
    await sql`TRUNCATE users CASCADE`.execute(test.database.db);
  }

  it("one after the other, the account adds up after every step", async () => {
    await fc.assert(
      fc.asyncProperty(steps, async (list) => {
        await clear();
        const model = new Model(await addUser(test.database.db, 100));
        for (const one of list) {
          await model.run(one);
          await audited();
        }
      }),
      { numRuns: 25 },
    );
  });

  it("all at once, the account adds up at every look and nothing is stuck", async () => {
    await fc.assert(
      fc.asyncProperty(steps, async (list) => {
        await clear();
        const model = new Model(await addUser(test.database.db, 100));
        for (let at = 0; at < list.length; at += 8) {
          await Promise.all([...list.slice(at, at + 8).map((one) => model.run(one)), audited()]);
        }
        await audited();
      }),
      { numRuns: 25 },
    );
  });
});
