import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  auditLedger,
  balanceOf,
  claimTask,
  finishTask,
  getPlan,
  getTask,
  queueView,
  readEvents,
  requestCancel,
  requestCancelPlan,
  requeueTask,
  setUserBudget,
  stepsBefore,
} from "#database";
import { createProject } from "#database/projects/index.ts";
import { newId } from "#platform/ids.ts";
import type { PlanStep } from "#schemas";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { addPlan, addTask, addUser } from "#tests/support/queue.ts";

let test: TestDatabase;
beforeAll(async () => {
  test = await testDatabase();
});
afterAll(() => test[Symbol.asyncDispose]());

const limits = { capacity: 1000, per_user: 20, seconds_between: 0 };

/** Run every task of a user's that may start. */
async function claimAll(user: string): Promise<Set<string>> {
  const claimed = new Set<string>();
  for (;;) {
    const task = await claimTask(test.database.db, { ...limits, worker_id: "w", lease_ms: 60_000 });
    if (task === null) return claimed;
    expect(task.user_id).toBe(user);
    claimed.add(task.step ?? task.id);
  }
}

/** End a step that runs; with a change of the project's when one is named. */
async function end(id: string, state: "completed" | "failed" = "completed", project_id?: string) {
  const { db } = test.database;
  const { attempt, user_id, builds_on } = await getTask(db, id);
  if (project_id === undefined) return finishTask(db, { task_id: id, attempt, state });
  const change = {
    id: newId("change"),
    project_id,
    author: user_id,
    base_revision: 0,
    summary: "s",
    files: [],
  };
  await finishTask(db, { task_id: id, attempt, state, change: { ...change, task_id: id } });
  return { id: change.id, builds_on };
}

async function project(owner_id: string): Promise<string> {
  const quota = { fileBytes: 1e6, projectBytes: 1e6, projectFiles: 10, userBytes: 1e7, userProjects: 5 };
  return (await createProject(test.database, { owner_id, name: "p", quota })).id;
}

async function audited(user: string, held = 0): Promise<void> {
  expect(await auditLedger(test.database.db)).toEqual({ users_off: [] });
  expect((await balanceOf(test.database.db, user)).held_microcredits).toBe(held);
}

describe("enqueuePlan", () => {
  it("[AG-2] makes all steps, their holds and first events together", async () => {
    const { db } = test.database;
    const user = await addUser(db, 1000);
    const { plan, tasks, ids } = await addPlan(db, user, { a: [], b: ["a"], c: ["a", "b"] }, { budget: 100 });
    expect(tasks.map(({ step, blocked, budget_left }) => [step, blocked, budget_left])).toEqual([
      ["a", false, 34],
      ["b", true, 33],
      ["c", true, 33],
    ]);
    expect(tasks.every(({ plan_id, state }) => plan_id === plan.id && state === "pending")).toBe(true);
    await audited(user, 100);
    for (const { id } of tasks) expect(await readEvents(db, id, 0, 5)).toHaveLength(1);
    expect(
      await stepsBefore(
        db,
        tasks.map(({ id }) => id),
      ),
    ).toEqual(
      new Map([
        [ids.b, [expect.objectContaining({ step: "a", completed: false })]],
        [ids.c, [expect.objectContaining({ step: "a" }), expect.objectContaining({ step: "b" })]],
      ]),
    );
    await requestCancelPlan(db, { user_id: user }, plan.id);
    await audited(user);
  });

  it("is idempotent, ten times at once, and a key is of one kind", async () => {
    const { db } = test.database;
    const user = await addUser(db);
    const idempotency_key = newId("call");
    const made = await Promise.all(
      Array.from({ length: 10 }, () => addPlan(db, user, { a: [], b: ["a"] }, { idempotency_key })),
    );
    expect(new Set(made.map(({ plan }) => plan.id)).size).toBe(1);
    expect(new Set(made.flatMap(({ tasks }) => tasks.map(({ id }) => id))).size).toBe(2);
    expect(made.filter(({ created }) => created)).toHaveLength(1);
    await expect(addTask(db, user, { idempotency_key })).rejects.toMatchObject({ code: "Conflict" });
    const other = newId("call");
    const task = await addTask(db, user, { idempotency_key: other });
    await expect(addPlan(db, user, { a: [] }, { idempotency_key: other })).rejects.toMatchObject({
      code: "Conflict",
    });
    await requestCancel(db, "admin", task.id);
    await requestCancelPlan(db, "admin", made[0]?.plan.id ?? "");
    await audited(user);
  });

  it("refuses clearly and changes nothing", async () => {
    const { db } = test.database;
    const poor = await addUser(db, 2);
    const three = { a: [], b: [], c: [] };
    await expect(addPlan(db, poor, three)).rejects.toMatchObject({
      code: "InsufficientBalance",
      details: { required_microcredits: 3 },
    });
    await expect(addPlan(db, poor, { a: ["b"], b: ["a"] })).rejects.toMatchObject({ code: "InvalidParams" });
    await expect(addPlan(db, poor, { "a\0": [] })).rejects.toMatchObject({
      details: { issues: [{ path: "step" }] },
    });
    const rich = await addUser(db);
    await expect(addPlan(db, rich, three, { pendingLimit: 2 })).rejects.toMatchObject({
      code: "QuotaExceeded",
      message: "You have 0 waiting tasks and want 3 more; the limit is 2.",
    });
    await setUserBudget(db, rich, { limit: 2, period: "total" });
    await expect(addPlan(db, rich, three)).rejects.toMatchObject({ code: "BudgetExceeded" });
    await expect(addPlan(db, "usr_nobody", three)).rejects.toMatchObject({ code: "NotFound" });
    await audited(poor);
    await audited(rich);
    await expect(getPlan(db, "pln_none", rich)).rejects.toMatchObject({ code: "NotFound" });
    await expect(requestCancelPlan(db, "admin", "pln_none")).rejects.toMatchObject({ code: "NotFound" });
  });

  it("hands every step what holds for all", async () => {
    const { db } = test.database;
    const user = await addUser(db);
    const first = await addTask(db, user);
    await requestCancel(db, "admin", first.id);
    const context = { path: "a.ts", selection: { start_line: 1, end_line: 2, text: "x\ny" } };
    const shared = { continues: first.id, context, network: ["example.org:443"], builds_on: ["chg_1"] };
    const { plan, tasks } = await addPlan(db, user, { a: [], b: ["a"] }, { ...shared, may_plan: true });
    for (const task of tasks) expect(task).toMatchObject({ ...shared, may_plan: true });
    await requestCancelPlan(db, "admin", plan.id);
    await expect(
      addPlan(db, user, { a: [] }, { continues: first.id, project_id: "prj_other" }),
    ).rejects.toMatchObject({ code: "InvalidParams", details: { issues: [{ path: "continues" }] } });
  });
});

describe("the steps of a plan", () => {
  it("[AG-2] start when all before them have completed, from what these changed", async () => {
    const { db } = test.database;
    const user = await addUser(db);
    const project_id = await project(user);
    const order = { a: [], b: ["a"], c: ["a"], d: ["b", "c", "a"], e: ["d"] };
    const { ids, tasks } = await addPlan(db, user, order, { project_id });
    const view = await queueView(
      db,
      tasks.map(({ id }) => id),
      limits,
    );
    expect(view.get(ids.a)).toEqual({ position: 1 });
    expect(view.get(ids.d)).toEqual({ reason: "waits_for_step" });
    expect(await claimAll(user)).toEqual(new Set(["a"]));
    const a = await end(ids.a, "completed", project_id);
    expect(await claimAll(user)).toEqual(new Set(["b", "c"]));
    const b = await end(ids.b, "completed", project_id);
    expect(b).toMatchObject({ builds_on: [a && typeof a === "object" ? a.id : ""] });
    expect(await claimAll(user)).toEqual(new Set());
    // It changed nothing: what it started from is in b's change already.
    await end(ids.c);
    expect(await claimAll(user)).toEqual(new Set(["d"]));
    const started = await getTask(db, ids.d);
    expect(started.builds_on).toEqual([typeof b === "object" ? b.id : ""]);
    expect(await readEvents(db, ids.d, 1, 1)).toMatchObject([{ type: "state", state: "pending" }]);
    await end(ids.d);
    expect(await claimAll(user)).toEqual(new Set(["e"]));
    expect((await getTask(db, ids.e)).builds_on).toEqual(started.builds_on);
    await end(ids.e);
    await audited(user);
  });

  it("end when one they need fails or is cancelled, and say which", async () => {
    const { db } = test.database;
    const user = await addUser(db);
    const { ids } = await addPlan(db, user, { a: [], b: ["a"], c: ["b"], d: [], e: ["d", "c"] });
    expect(await claimAll(user)).toEqual(new Set(["a", "d"]));
    await end(ids.a, "failed");
    for (const id of [ids.b, ids.c, ids.e]) {
      expect(await getTask(db, id)).toMatchObject({
        state: "cancelled",
        blocked: false,
        budget_left: 0,
        error: { code: "Cancelled", message: `Step "a" failed, and this one comes after it.` },
      });
      const types = (await readEvents(db, id, 0, 10)).map(({ type }) => type);
      expect(types).toEqual(["state", "usage", "error", "done"]);
    }
    await end(ids.d);
    await audited(user);

    const again = await addPlan(db, user, { a: [], b: ["a"], c: ["b"] });
    await requestCancel(db, { user_id: user }, again.ids.b);
    expect((await getTask(db, again.ids.b)).error).toBeNull();
    expect((await getTask(db, again.ids.c)).error?.message).toContain('"b" was cancelled');
    expect((await getTask(db, again.ids.c)).error?.hint).toContain(again.ids.b);
    expect(await claimAll(user)).toEqual(new Set(["a"]));
    await end(again.ids.a);
    await audited(user);
  });

  it("a try that is repeated holds up the next step, no more", async () => {
    const { db } = test.database;
    const user = await addUser(db);
    const { ids } = await addPlan(db, user, { a: [], b: ["a"] });
    await claimAll(user);
    await requeueTask(db, ids.a, 1, { delay_ms: 0, note: "again" });
    expect((await getTask(db, ids.b)).blocked).toBe(true);
    expect(await claimAll(user)).toEqual(new Set(["a"]));
    await end(ids.a);
    expect(await claimAll(user)).toEqual(new Set(["b"]));
    await end(ids.b);
    await audited(user);
  });

  it("cancelling a plan ends what waits and marks what runs", async () => {
    const { db } = test.database;
    const user = await addUser(db);
    const { plan, ids } = await addPlan(db, user, { a: [], b: ["a"], c: [] });
    await claimAll(user);
    await end(ids.c);
    const stranger = { user_id: await addUser(db) };
    await expect(requestCancelPlan(db, stranger, plan.id)).rejects.toMatchObject({ code: "NotFound" });
    const left = await requestCancelPlan(db, { user_id: user }, plan.id);
    expect(left.map(({ state }) => state)).toEqual(["running", "cancelled", "completed"]);
    expect(left[0]?.cancel_requested_at).not.toBeNull();
    await finishTask(db, { task_id: ids.a, attempt: 1, state: "cancelled" });
    await audited(user);
  });
});

describe("a plan made by an agent", () => {
  const steps: PlanStep[] = [
    { id: "code", agent: "CodeAgent", prompt: "Write it." },
    { id: "test", agent: "TestAgent", prompt: "Try it.", after: ["code"], model: "other", priority: 9 },
  ];

  it("is paid from what its task left, starts from its change, and comes before what came after it", async () => {
    const { db } = test.database;
    const user = await addUser(db, 1000);
    const project_id = await project(user);
    const given = { project_id, budget: 600, may_plan: true, network: ["h:1"] };
    const { plan, ids } = await addPlan(db, user, { think: [], ship: ["think"] }, given);
    await claimAll(user);
    const change = {
      id: newId("change"),
      project_id,
      author: "a",
      base_revision: 0,
      summary: "s",
      files: [],
    };
    const finish = { task_id: ids.think, attempt: 1, state: "completed" as const, change };
    expect(await finishTask(db, { ...finish, plan: { steps, pendingLimit: 10 } })).toBe(true);
    await audited(user, 600);
    const made = (await db.selectFrom("tasks").selectAll().where("plan_id", "=", plan.id).execute()).toSorted(
      (x, y) => (x.step_nth ?? 0) - (y.step_nth ?? 0),
    );
    expect(made.map(({ step, budget_left, agent, model }) => [step, budget_left, agent, model])).toEqual([
      ["think", 0, "CodeAgent", "demo"],
      ["ship", 300, "CodeAgent", "demo"],
      ["think.code", 150, "CodeAgent", "demo"],
      ["think.test", 150, "TestAgent", "other"],
    ]);
    expect(made[2]).toMatchObject({
      may_plan: false,
      network: ["h:1"],
      builds_on: [change.id],
      blocked: false,
    });
    for (const next of ["think.code", "think.test", "ship"]) {
      expect(await claimAll(user)).toEqual(new Set([next]));
      await end(made.find(({ step }) => step === next)?.id ?? "");
    }
    await audited(user);
  });

  it("makes a plan out of a single task", async () => {
    const { db } = test.database;
    const user = await addUser(db);
    const { id } = await addTask(db, user, { may_plan: true });
    await claimAll(user);
    await finishTask(db, { task_id: id, attempt: 1, state: "completed", plan: { steps, pendingLimit: 10 } });
    const task = await getTask(db, id);
    expect(task).toMatchObject({ step: "plan", step_nth: 0, state: "completed" });
    const { user_id } = await getPlan(db, task.plan_id ?? "", user);
    expect(user_id).toBe(user);
    expect(await claimAll(user)).toEqual(new Set(["plan.code"]));
    await requestCancelPlan(db, "admin", task.plan_id ?? "");
    for (const row of await db.selectFrom("tasks").selectAll().where("state", "=", "running").execute()) {
      await finishTask(db, { task_id: row.id, attempt: 1, state: "cancelled" });
    }
    await audited(user);
  });

  it("is refused where it may not be, costs too much or is too much", async () => {
    const { db } = test.database;
    const user = await addUser(db);
    const running = async (given: Parameters<typeof addTask>[2]) => {
      const { id } = await addTask(db, user, given);
      await claimAll(user);
      return { task_id: id, attempt: 1, state: "completed" as const };
    };
    const plan = { steps, pendingLimit: 10 };
    const tame = await running({});
    await expect(finishTask(db, { ...tame, plan })).rejects.toMatchObject({ code: "Forbidden" });
    expect(await finishTask(db, tame)).toBe(true);
    const may_plan = true;
    const circle = [{ ...(steps[0] as PlanStep), after: ["code"] }];
    const odd = await running({ may_plan });
    await expect(finishTask(db, { ...odd, plan: { ...plan, steps: circle } })).rejects.toMatchObject({
      code: "InvalidParams",
    });
    expect(await finishTask(db, { ...odd, plan: { steps, pendingLimit: 1 } })).toBe(true);
    expect(await getTask(db, odd.task_id)).toMatchObject({
      state: "failed",
      error: { code: "QuotaExceeded" },
    });
    const poor = await running({ may_plan, budget: 1 });
    expect(await finishTask(db, { ...poor, plan })).toBe(true);
    expect(await getTask(db, poor.task_id)).toMatchObject({
      state: "failed",
      error: { code: "BudgetExceeded" },
    });
    const unwanted = await running({ may_plan });
    await requestCancel(db, "admin", unwanted.task_id);
    expect(await finishTask(db, { ...unwanted, plan })).toBe(true);
    expect(await getTask(db, unwanted.task_id)).toMatchObject({ state: "completed", plan_id: null });
    const failed = await running({ may_plan });
    expect(await finishTask(db, { ...failed, state: "failed", plan })).toBe(true);
    expect(await claimAll(user)).toEqual(new Set());
    await audited(user);
  });
});

describe("enqueueTask", () => {
  it("goes on only from an ended task of the same user and project", async () => {
    const { db } = test.database;
    const user = await addUser(db);
    const { id } = await addTask(db, user);
    await expect(addTask(db, user, { continues: id })).rejects.toMatchObject({ code: "Conflict" });
    await requestCancel(db, "admin", id);
    await expect(addTask(db, await addUser(db), { continues: id })).rejects.toMatchObject({
      code: "NotFound",
    });
    await expect(addTask(db, user, { continues: "tsk_none" })).rejects.toMatchObject({ code: "NotFound" });
    const next = await addTask(db, user, { continues: id, resolves: "chg_1", builds_on: ["chg_2"] });
    expect(next).toMatchObject({ continues: id, resolves: "chg_1", builds_on: ["chg_2"], network: [] });
    await requestCancel(db, "admin", next.id);
  });
});
