import { sql } from "kysely";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import {
  auditLedger,
  balanceOf,
  type Claim,
  claimTask,
  finishTask,
  openCall,
  projectBudget,
  releaseCall,
  setProjectBudget,
  settleCall,
  setUserBudget,
  type TaskRow,
  userBudget,
} from "#database";
import { newId } from "#platform/ids.ts";
import type { AppError } from "#schemas";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { addTask, addUser } from "#tests/support/queue.ts";

let test: TestDatabase;
beforeAll(async () => {
  test = await testDatabase();
});
afterAll(() => test[Symbol.asyncDispose]());
beforeEach(async () => {
  // A task left waiting would be claimed by the next test.
  await sql`TRUNCATE users, tasks CASCADE`.execute(test.database.db);
});

const claim: Claim = { worker_id: "w1", capacity: 1000, per_user: 9, seconds_between: 0, lease_ms: 60_000 };

function call(user_id: string, hold: number, task?: TaskRow) {
  const owned = task === undefined ? {} : { task: { task_id: task.id, attempt: task.attempt } };
  return { call_id: newId("call"), user_id, model: "m", instance_id: "i1", hold, ...owned };
}

function settle(call_id: string, cost: number) {
  const tokens = { input_tokens: 10, output_tokens: 5, cached_tokens: 0 };
  const settlement = { call_id, ...tokens, cost, counted_by: "provider", endpoint: "/v1/x" } as const;
  return settleCall(test.database.db, settlement);
}

async function addProject(owner_id: string): Promise<string> {
  const id = newId("project");
  await test.database.db.insertInto("projects").values({ id, owner_id, name: "p" }).execute();
  return id;
}

async function running(user: string, project_id: string, budget: number): Promise<TaskRow> {
  const { id } = await addTask(test.database.db, user, { project_id, budget });
  const task = await claimTask(test.database.db, claim);
  expect(task?.id).toBe(id);
  if (task === null) throw new Error("nothing to claim");
  return task;
}

async function audited(): Promise<void> {
  expect(await auditLedger(test.database.db)).toEqual({ users_off: [] });
}

/** As if what was spent so far had been spent in an earlier month. */
async function monthPasses(user_id: string): Promise<void> {
  const { db } = test.database;
  await sql`UPDATE tokens_used SET created_at = created_at - interval '32 days'
    WHERE user_id = ${user_id}`.execute(db);
  for (const [table, id] of [
    ["users", "id"],
    ["projects", "owner_id"],
  ]) {
    await sql`UPDATE ${sql.table(table ?? "")} SET spent_since = spent_since - interval '32 days'
      WHERE ${sql.ref(id ?? "")} = ${user_id} AND budget_period = 'month'`.execute(db);
  }
}

/** The first moment of the next calendar month, UTC. */
function nextMonth(): Date {
  const now = new Date();
  return new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1, 1));
}

describe("[US-3] a user's budget", () => {
  it("bounds what is spent and held, however much the balance has", async () => {
    const { db } = test.database;
    const user = await addUser(db, 10_000);
    const free = { limit: null, period: "month", spent: 0, held: 0, resets_at: nextMonth() };
    expect(await userBudget(db, user)).toEqual(free);
    await setUserBudget(db, user, { limit: 100, period: "month" });
    const first = call(user, 60);
    await openCall(db, first);
    await expect(openCall(db, call(user, 41))).rejects.toMatchObject({
      code: "BudgetExceeded",
      details: {
        scope: "user",
        limit: 100,
        spent: 0,
        held: 60,
        resets_at: nextMonth().toISOString(),
        available_microcredits: 40,
        required_microcredits: 41,
        hint: expect.stringContaining("administrator"),
      },
    });
    await settle(first.call_id, 30);
    await openCall(db, call(user, 70));
    expect(await userBudget(db, user)).toMatchObject({ limit: 100, spent: 30, held: 70 });
    // What costs nothing needs no budget.
    await openCall(db, call(user, 0));
    await audited();
  });

  it("is never passed by a call that cost more than was held for it: the rest is not collected", async () => {
    const { db } = test.database;
    const user = await addUser(db, 10_000);
    await setUserBudget(db, user, { limit: 100, period: "total" });
    const [first, second] = [call(user, 20), call(user, 50)];
    await openCall(db, first);
    await openCall(db, second);
    // 20 held for it, and 30 that neither is spent nor held.
    expect(await settle(first.call_id, 90)).toEqual({ settled: true, charged: 50, uncollected: 40 });
    expect(await userBudget(db, user)).toMatchObject({ spent: 50, held: 50, resets_at: null });
    await releaseCall(db, second.call_id);
    expect(await settle(second.call_id, 70)).toMatchObject({ charged: 50, uncollected: 20 });
    await audited();
  });

  it("reduces the hold of a task to what it leaves, and refuses one below the minimum", async () => {
    const { db } = test.database;
    const user = await addUser(db, 10_000);
    await setUserBudget(db, user, { limit: 150, period: "month" });
    expect((await addTask(db, user, { budget: 100 })).budget_left).toBe(100);
    expect((await addTask(db, user, { budget: 100 })).budget_left).toBe(50);
    await expect(addTask(db, user, { budget: 100 })).rejects.toMatchObject({
      code: "BudgetExceeded",
      details: { scope: "user", limit: 150, held: 150, required_microcredits: 1 },
    });
    await setUserBudget(db, user, { limit: 160, period: "month" });
    await expect(addTask(db, user, { budget: 100, minimum_hold: 11 })).rejects.toMatchObject({
      code: "BudgetExceeded",
    });
    expect((await addTask(db, user, { budget: 100, minimum_hold: 10 })).budget_left).toBe(10);
    await audited();
  });

  it("names what leaves less: the balance or the budget", async () => {
    const { db } = test.database;
    const user = await addUser(db, 50);
    await setUserBudget(db, user, { limit: 80, period: "month" });
    await expect(openCall(db, call(user, 100))).rejects.toMatchObject({
      code: "InsufficientBalance",
      details: { available_microcredits: 50 },
    });
    await setUserBudget(db, user, { limit: 20, period: "month" });
    await expect(openCall(db, call(user, 100))).rejects.toMatchObject({
      code: "BudgetExceeded",
      details: { available_microcredits: 20 },
    });
  });

  it("begins anew with the calendar month, but for one that is for good", async () => {
    const { db } = test.database;
    const user = await addUser(db, 10_000);
    await setUserBudget(db, user, { limit: 100, period: "month" });
    const first = call(user, 100);
    await openCall(db, first);
    await settle(first.call_id, 80);
    const kept = call(user, 20);
    await openCall(db, kept);
    await expect(openCall(db, call(user, 1))).rejects.toMatchObject({ code: "BudgetExceeded" });
    await monthPasses(user);
    await audited();
    // What is held goes on being held.
    expect(await userBudget(db, user)).toMatchObject({ spent: 0, held: 20 });
    await openCall(db, call(user, 80));
    await expect(openCall(db, call(user, 1))).rejects.toMatchObject({ code: "BudgetExceeded" });
    await settle(kept.call_id, 15);
    expect(await userBudget(db, user)).toMatchObject({ spent: 15, held: 80 });
    await audited();
    // Counted anew, over all there ever was, and back.
    expect(await setUserBudget(db, user, { limit: 200, period: "total" })).toMatchObject({ spent: 95 });
    await monthPasses(user);
    await openCall(db, call(user, 25));
    await expect(openCall(db, call(user, 1))).rejects.toMatchObject({ code: "BudgetExceeded" });
    expect(await setUserBudget(db, user, { limit: 200, period: "month" })).toMatchObject({ spent: 0 });
    await audited();
  });

  it("set below what is spent and held stops what is new, and lets go on what is held", async () => {
    const { db } = test.database;
    const user = await addUser(db, 10_000);
    const held = call(user, 50);
    await openCall(db, held);
    await setUserBudget(db, user, { limit: 10, period: "month" });
    await expect(openCall(db, call(user, 1))).rejects.toMatchObject({ code: "BudgetExceeded" });
    expect(await settle(held.call_id, 70)).toEqual({ settled: true, charged: 50, uncollected: 20 });
    expect(await userBudget(db, user)).toMatchObject({ limit: 10, spent: 50, held: 0 });
    await setUserBudget(db, user, { limit: null, period: "month" });
    await openCall(db, call(user, 1000));
    await audited();
  });

  it("refuses a limit that is no amount, and a user that is nobody", async () => {
    const { db } = test.database;
    await expect(userBudget(db, "usr_none")).rejects.toMatchObject({ code: "NotFound" });
    await expect(setUserBudget(db, "usr_none", { limit: 1, period: "month" })).rejects.toMatchObject({
      code: "NotFound",
    });
    const user = await addUser(db);
    for (const limit of [-1, 0.5, Number.NaN]) {
      await expect(async () => setUserBudget(db, user, { limit, period: "month" })).rejects.toThrow(
        RangeError,
      );
    }
  });
});

describe("[US-3] a project's budget", () => {
  it("bounds all its tasks together, and leaves other work alone", async () => {
    const { db } = test.database;
    const user = await addUser(db, 10_000);
    const [project_id, other] = [await addProject(user), await addProject(user)];
    await setProjectBudget(db, project_id, { limit: 250, period: "total" });
    const task = await running(user, project_id, 200);
    expect((await addTask(db, user, { project_id, budget: 200 })).budget_left).toBe(50);
    await expect(addTask(db, user, { project_id, budget: 1 })).rejects.toMatchObject({
      code: "BudgetExceeded",
      details: {
        scope: "project",
        limit: 250,
        spent: 0,
        held: 250,
        hint: expect.stringContaining("budget.set"),
      },
    });
    await addTask(db, user, { project_id: other, budget: 500 });
    await openCall(db, call(user, 500));
    const made = call(user, 100, task);
    await openCall(db, made);
    expect(await projectBudget(db, project_id)).toMatchObject({ spent: 0, held: 250 });
    await settle(made.call_id, 40);
    expect(await projectBudget(db, project_id)).toMatchObject({ spent: 40, held: 210 });
    const late = call(user, 60, task);
    await openCall(db, late);
    await finishTask(db, { task_id: task.id, attempt: task.attempt, state: "completed" });
    // The task has ended, but its last call is still open.
    expect(await projectBudget(db, project_id)).toMatchObject({ spent: 40, held: 110 });
    expect((await addTask(db, user, { project_id, budget: 999 })).budget_left).toBe(100);
    // Nothing but its hold is left to pay with.
    expect(await settle(late.call_id, 75)).toEqual({ settled: true, charged: 60, uncollected: 15 });
    expect(await projectBudget(db, project_id)).toMatchObject({ spent: 100, held: 150 });
    await audited();
  });

  it("begins anew with the month", async () => {
    const { db } = test.database;
    const user = await addUser(db, 10_000);
    const project_id = await addProject(user);
    await setProjectBudget(db, project_id, { limit: 100, period: "month" });
    const task = await running(user, project_id, 100);
    const made = call(user, 100, task);
    await openCall(db, made);
    await settle(made.call_id, 100);
    await finishTask(db, { task_id: task.id, attempt: task.attempt, state: "completed" });
    await expect(addTask(db, user, { project_id })).rejects.toMatchObject({
      code: "BudgetExceeded",
      details: { spent: 100, held: 0, resets_at: nextMonth().toISOString() },
    });
    await monthPasses(user);
    expect((await addTask(db, user, { project_id, budget: 500 })).budget_left).toBe(100);
    expect(await setProjectBudget(db, project_id, { limit: 500, period: "total" })).toMatchObject({
      spent: 100,
      held: 100,
    });
    await audited();
  });

  it("that is gone with its project stops nobody", async () => {
    const { db } = test.database;
    const user = await addUser(db, 1000);
    const project_id = await addProject(user);
    await setProjectBudget(db, project_id, { limit: 100, period: "month" });
    const task = await running(user, project_id, 100);
    const made = call(user, 50, task);
    await openCall(db, made);
    await db.deleteFrom("projects").where("id", "=", project_id).execute();
    expect(await settle(made.call_id, 30)).toMatchObject({ settled: true, charged: 30 });
    expect((await balanceOf(db, user)).balance_microcredits).toBe(970);
    await expect(projectBudget(db, project_id)).rejects.toMatchObject({ code: "NotFound" });
    await expect(setProjectBudget(db, project_id, { limit: 1, period: "month" })).rejects.toMatchObject({
      code: "NotFound",
    });
    await audited();
  });
});

describe("[US-3] a hundred at once", () => {
  const codes = (results: PromiseSettledResult<unknown>[]) =>
    results.flatMap((result) => (result.status === "rejected" ? [(result.reason as AppError).code] : []));

  it("calls on a user's budget for one: one is opened, nothing is overspent", async () => {
    const { db } = test.database;
    const user = await addUser(db, 1_000_000);
    await setUserBudget(db, user, { limit: 7, period: "month" });
    const calls = Array.from({ length: 100 }, () => call(user, 7));
    const results = await Promise.allSettled(calls.map((one) => openCall(db, one)));
    expect(codes(results)).toEqual(Array(99).fill("BudgetExceeded"));
    await Promise.all(calls.map(({ call_id }) => settle(call_id, 9).catch(() => undefined)));
    expect(await userBudget(db, user)).toMatchObject({ spent: 7, held: 0 });
    await audited();
  });

  it("tasks on a user's budget for one, in as many projects", async () => {
    const { db } = test.database;
    const user = await addUser(db, 1_000_000);
    await setUserBudget(db, user, { limit: 7, period: "month" });
    const projects = await Promise.all(Array.from({ length: 100 }, () => addProject(user)));
    const results = await Promise.allSettled(
      projects.map((project_id) => addTask(db, user, { project_id, budget: 7 })),
    );
    expect(codes(results)).toEqual(Array(99).fill("BudgetExceeded"));
    expect(await userBudget(db, user)).toMatchObject({ spent: 0, held: 7 });
    await audited();
  });

  it("tasks on a project's budget for one", async () => {
    const { db } = test.database;
    const user = await addUser(db, 1_000_000);
    const project_id = await addProject(user);
    await setProjectBudget(db, project_id, { limit: 7, period: "total" });
    const results = await Promise.allSettled(
      Array.from({ length: 100 }, () => addTask(db, user, { project_id, budget: 7 })),
    );
    expect(codes(results)).toEqual(Array(99).fill("BudgetExceeded"));
    expect(await projectBudget(db, project_id)).toMatchObject({ spent: 0, held: 7 });
    await audited();
  });

  it("tasks while the limit is set: those before it and those after it, never both", async () => {
    const { db } = test.database;
    const user = await addUser(db, 1_000_000);
    const project_id = await addProject(user);
    const add = () => addTask(db, user, { project_id, budget: 10 });
    const before = Array.from({ length: 30 }, add);
    const setting = setProjectBudget(db, project_id, { limit: 100, period: "total" });
    const results = await Promise.allSettled([...before, ...Array.from({ length: 30 }, add)]);
    const heldThen = (await setting).held;
    const { held } = await projectBudget(db, project_id);
    expect(held).toBe(10 * (60 - codes(results).length));
    expect(held).toBe(Math.max(100, heldThen));
    await audited();
  });
});
