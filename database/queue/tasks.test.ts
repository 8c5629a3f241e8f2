import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import {
  appendEvents,
  auditLedger,
  balanceOf,
  type Claim,
  claimTask,
  enqueueTask,
  finishTask,
  getTask,
  listTasks,
  openCall,
  readEvents,
  reapExpired,
  renewLeases,
  requestCancel,
  requeueTask,
  settleCall,
  type TaskRow,
  usageOf,
} from "#database";
import { createProject } from "#database/projects/index.ts";
import { newId } from "#platform/ids.ts";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { addTask, addUser, renewLease } from "#tests/support/queue.ts";

vi.setConfig({ expect: { poll: { timeout: 30_000 } } });

let test: TestDatabase;
beforeAll(async () => {
  test = await testDatabase();
});
afterAll(() => test[Symbol.asyncDispose]());

const claim: Claim = { worker_id: "w1", capacity: 1000, per_user: 1, seconds_between: 0, lease_ms: 5000 };

/** A task that runs: its user's only one, so the claim can give no other. */
async function running(given: Parameters<typeof addTask>[2] = {}): Promise<TaskRow> {
  const { db } = test.database;
  const task = await addTask(db, await addUser(db), { priority: 32_000, ...given });
  const claimed = await claimTask(db, claim);
  expect(claimed?.id).toBe(task.id);
  return claimed ?? task;
}

async function loseLease(id: string): Promise<void> {
  await sql`UPDATE tasks SET lease_until = now() - interval '1 second' WHERE id = ${id}`.execute(
    test.database.db,
  );
}

const typesOf = async (id: string) =>
  (await readEvents(test.database.db, id, 0, 1000)).map(({ type }) => type);

async function audited(): Promise<void> {
  expect(await auditLedger(test.database.db)).toEqual({ users_off: [] });
}

describe("enqueueTask", () => {
  it("makes the task, its hold and its first event together", async () => {
    const { db } = test.database;
    const user = await addUser(db, 500);
    const task = await addTask(db, user, { budget: 800 });
    expect(task).toMatchObject({ state: "pending", attempt: 0, budget_microcredits: 500, budget_left: 500 });
    expect(task.created_at).toBeInstanceOf(Date);
    expect(await balanceOf(db, user)).toEqual({ balance_microcredits: 500, held_microcredits: 500 });
    expect(await readEvents(db, task.id, 0, 10)).toEqual([
      { task_id: task.id, seq: 1, at: expect.any(String), type: "state", state: "pending" },
    ]);
    await audited();
    await requestCancel(db, { user_id: user }, task.id);
  });

  it("answers 20 identical calls at once with one task", async () => {
    const { db } = test.database;
    const user = await addUser(db);
    const made = await Promise.all(
      Array.from({ length: 20 }, () =>
        enqueueTask(db, {
          id: newId("task"),
          user_id: user,
          project_id: "prj_1",
          agent: "CodeAgent",
          runner: "opencode",
          model: "demo",
          prompt: "Hello.",
          priority: 1,
          max_attempts: 1,
          budget: 100,
          pendingLimit: 1,
          idempotency_key: "once",
        }),
      ),
    );
    expect(new Set(made.map(({ task }) => task.id)).size).toBe(1);
    expect(made.filter(({ created }) => created)).toHaveLength(1);
    expect((await balanceOf(db, user)).held_microcredits).toBe(100);
    await audited();
  });

  it("refuses clearly and changes nothing", async () => {
    const { db } = test.database;
    const poor = await addUser(db, 5);
    await expect(addTask(db, poor, { minimum_hold: 6 })).rejects.toMatchObject({
      code: "InsufficientBalance",
      details: { available_microcredits: 5, required_microcredits: 6 },
    });
    await expect(addTask(db, await addUser(db, 0))).rejects.toMatchObject({ code: "InsufficientBalance" });
    await expect(addTask(db, "usr_nobody")).rejects.toMatchObject({ code: "NotFound" });
    await expect(addTask(db, poor, { prompt: "a\0b" })).rejects.toMatchObject({
      code: "InvalidParams",
      details: { issues: [{ path: "prompt" }] },
    });
    await expect(addTask(db, poor, { budget: 1.5 })).rejects.toThrow(RangeError);
    const task = await addTask(db, poor, { budget: 1, pendingLimit: 1 });
    await expect(addTask(db, poor, { budget: 1, pendingLimit: 1 })).rejects.toMatchObject({
      code: "QuotaExceeded",
      details: { limit: 1, actual: 1 },
    });
    expect(await balanceOf(db, poor)).toEqual({ balance_microcredits: 5, held_microcredits: 1 });
    await requestCancel(db, "admin", task.id);
    await audited();
  });

  it("rolls back with the transaction it is part of", async () => {
    const { db } = test.database;
    const user = await addUser(db);
    await expect(
      test.database.transaction(async (trx) => {
        await addTask(trx, user);
        throw new Error("no");
      }),
    ).rejects.toThrow("no");
    expect((await listTasks(db, { user_id: user, limit: 5 })).tasks).toEqual([]);
    await audited();
  });
});

describe("finishTask", () => {
  it("writes usage, change, done and gives back the rest, once", async () => {
    const { db } = test.database;
    const task = await running({ budget: 1000 });
    const project = await createProject(test.database, {
      owner_id: task.user_id,
      name: "p",
      quota: { fileBytes: 1e6, projectBytes: 1e6, projectFiles: 10, userBytes: 1e7, userProjects: 5 },
    });
    const owned = { task_id: task.id, attempt: 1 };
    const call_id = newId("call");
    await openCall(db, {
      call_id,
      user_id: task.user_id,
      model: "m",
      instance_id: "i",
      hold: 300,
      task: owned,
    });
    const tokens = { input_tokens: 7, output_tokens: 3, cached_tokens: 2 };
    await settleCall(db, { call_id, ...tokens, cost: 120, counted_by: "provider", endpoint: "/v1/x" });
    const change = {
      id: newId("change"),
      project_id: project.id,
      task_id: task.id,
      author: task.user_id,
      base_revision: 0,
      summary: "s",
      files: [],
    };
    expect(await finishTask(db, { ...owned, state: "completed", change })).toBe(true);
    expect(await finishTask(db, { ...owned, state: "completed", change })).toBe(false);
    const usage = { input_tokens: 7, output_tokens: 3, cost_microcredits: 120 };
    expect((await readEvents(db, task.id, 2, 10)).map(({ task_id: _, at: __, ...event }) => event)).toEqual([
      { seq: 3, type: "usage", ...usage },
      { seq: 4, type: "change", change_id: change.id, files: 0 },
      { seq: 5, type: "done", state: "completed", change_id: change.id },
    ]);
    expect(await usageOf(db, [task.id, "tsk_none"])).toEqual(
      new Map([
        [task.id, usage],
        ["tsk_none", { input_tokens: 0, output_tokens: 0, cost_microcredits: 0 }],
      ]),
    );
    expect(await usageOf(db, [])).toEqual(new Map());
    const ended = await getTask(db, task.id);
    expect(ended).toMatchObject({
      state: "completed",
      change_id: change.id,
      base_revision: 0,
      budget_left: 0,
    });
    expect(ended).toMatchObject({ last_seq: 5, user_slot: null, lease_until: null, error: null });
    expect(ended.finished_at).toBeInstanceOf(Date);
    expect(await balanceOf(db, task.user_id)).toEqual({
      balance_microcredits: 999_880,
      held_microcredits: 0,
    });
    await audited();
  });

  it("stores the error with the task and in its log; what jsonb refuses is replaced", async () => {
    const { db } = test.database;
    const task = await running();
    const error = { code: "RunFailed", message: "broke \0 at \ud800 \\u0000", hint: "again" };
    expect(await finishTask(db, { task_id: task.id, attempt: 1, state: "failed", error })).toBe(true);
    const kept = { ...error, message: "broke \ufffd at \ufffd \\u0000" };
    expect((await getTask(db, task.id)).error).toEqual(kept);
    const last = (await readEvents(db, task.id, 3, 10)).map(({ at: _, ...event }) => event);
    expect(last).toEqual([
      { task_id: task.id, seq: 4, type: "error", ...kept },
      { task_id: task.id, seq: 5, type: "done", state: "failed", error: kept },
    ]);
  });

  it("leaves a task as it was when its change cannot be stored", async () => {
    const { db } = test.database;
    const task = await running();
    const file = { path: "../out", base_hash: null, new_hash: null, executable: false };
    const change = { id: newId("change"), project_id: "prj_1", author: "a", base_revision: 0, summary: "s" };
    const finish = { task_id: task.id, attempt: 1, state: "completed" as const };
    const bad = { ...finish, change: { ...change, files: [file] } };
    await expect(finishTask(db, bad)).rejects.toMatchObject({ code: "InvalidParams" });
    expect((await getTask(db, task.id)).state).toBe("running");
    expect(await finishTask(db, { ...finish, state: "failed" })).toBe(true);
    await audited();
  });

  it("fails a task whose project was deleted under it", async () => {
    const { db } = test.database;
    const gone = { project_id: "prj_gone", author: "a", base_revision: 0, summary: "s", files: [] };
    for (const error of [undefined, { code: "Timeout", message: "late" }]) {
      const task = await running();
      const change = { id: newId("change"), ...gone };
      const finish = { task_id: task.id, attempt: 1, state: "completed" as const };
      expect(await finishTask(db, { ...finish, change, error })).toBe(true);
      expect(await getTask(db, task.id)).toMatchObject({
        state: "failed",
        change_id: null,
        error: { code: error?.code ?? "NotFound" },
      });
    }
  });
});

describe("fencing", () => {
  it("a stale attempt can neither append, finish, put back nor renew", async () => {
    const { db } = test.database;
    const task = await running();
    expect(await requeueTask(db, task.id, 1, { delay_ms: 0, note: "moved" })).toBe(true);
    const refused = async () => {
      const old = { task_id: task.id, attempt: 1 };
      expect(await appendEvents(db, old, [{ type: "text", delta: "ghost" }])).toBeNull();
      expect(await finishTask(db, { ...old, state: "completed" })).toBe(false);
      expect(await requeueTask(db, task.id, 1, { delay_ms: 0, note: "ghost" })).toBe(false);
      expect(await renewLease(db, task.id, 1, 60_000)).toEqual({
        alive: false,
        cancel: false,
        paused: false,
      });
      const call = { call_id: newId("call"), user_id: task.user_id, model: "m", instance_id: "i", hold: 1 };
      await expect(openCall(db, { ...call, task: old })).rejects.toMatchObject({ code: "Cancelled" });
    };
    await refused();
    expect(await claimTask(db, claim)).toMatchObject({ id: task.id, attempt: 2 });
    await refused();
    expect(await finishTask(db, { task_id: task.id, attempt: 2, state: "completed" })).toBe(true);
    await refused();
    expect(await typesOf(task.id)).toEqual(["state", "state", "state", "state", "usage", "done"]);
    expect(await finishTask(db, { task_id: "tsk_none", attempt: 1, state: "failed" })).toBe(false);
  });
});

describe("leases", () => {
  it("renewing keeps a task and tells of a wish to cancel", async () => {
    const { db } = test.database;
    const task = await running();
    await loseLease(task.id);
    expect(await renewLease(db, task.id, 1, 5000)).toEqual({ alive: true, cancel: false, paused: false });
    expect(await reapExpired(db)).toEqual({ requeued: 0, failed: 0, cancelled: 0 });
    await requestCancel(db, "admin", task.id);
    expect(await renewLease(db, task.id, 1, 5000)).toEqual({ alive: true, cancel: true, paused: false });
    await finishTask(db, { task_id: task.id, attempt: 1, state: "cancelled" });
  });

  it("many are renewed at once: what somebody's transaction has is passed over", async () => {
    const { db } = test.database;
    const [kept, stale, held] = [await running(), await running(), await running()];
    await loseLease(kept.id);
    await requestCancel(db, "admin", kept.id);
    const leases = [kept, stale, held].map(({ id }) => ({ task_id: id, attempt: id === stale.id ? 2 : 1 }));
    const renewed = await db.transaction().execute(async (trx) => {
      await trx.selectFrom("tasks").select("id").where("id", "=", held.id).forNoKeyUpdate().execute();
      return await renewLeases(db, leases, 5000);
    });
    const told = Object.fromEntries(renewed.map(({ task_id, ...lease }) => [task_id, lease]));
    expect(told).toEqual({
      [kept.id]: { attempt: 1, alive: true, cancel: true, paused: false },
      [stale.id]: { attempt: 2, alive: false, cancel: false, paused: false },
    });
    expect(await reapExpired(db)).toEqual({ requeued: 0, failed: 0, cancelled: 0 });
    expect(await renewLeases(db, leases, 5000)).toContainEqual(
      expect.objectContaining({ task_id: held.id, alive: true }),
    );
    for (const { id } of [kept, stale, held])
      await finishTask(db, { task_id: id, attempt: 1, state: "cancelled" });
  });

  it("reaping passes over what the caller itself is at work on", async () => {
    const { db } = test.database;
    const [mine, lost] = [await running(), await running()];
    await loseLease(mine.id);
    await loseLease(lost.id);
    expect(await reapExpired(db, [mine.id])).toMatchObject({ requeued: 1 });
    expect(await renewLease(db, mine.id, 1, 5000)).toEqual({ alive: true, cancel: false, paused: false });
    expect((await getTask(db, lost.id)).state).toBe("pending");
    await requestCancel(db, "admin", lost.id);
    await finishTask(db, { task_id: mine.id, attempt: 1, state: "completed" });
  });

  it("reaping tries again while attempts are left, then fails, and gives everything back", async () => {
    const { db } = test.database;
    const task = await running({ max_attempts: 2, budget: 1000 });
    const call = { user_id: task.user_id, model: "m", instance_id: "i", hold: 400 };
    await openCall(db, { ...call, call_id: newId("call"), task: { task_id: task.id, attempt: 1 } });
    await loseLease(task.id);
    expect(await reapExpired(db)).toEqual({ requeued: 1, failed: 0, cancelled: 0 });
    expect(await getTask(db, task.id)).toMatchObject({
      state: "pending",
      budget_left: 1000,
      worker_id: null,
    });
    expect(await claimTask(db, claim)).toMatchObject({ id: task.id, attempt: 2 });
    await openCall(db, { ...call, call_id: newId("call"), task: { task_id: task.id, attempt: 2 } });
    await loseLease(task.id);
    expect(await reapExpired(db)).toEqual({ requeued: 0, failed: 1, cancelled: 0 });
    expect(await getTask(db, task.id)).toMatchObject({ state: "failed", error: { code: "RunFailed" } });
    expect(await balanceOf(db, task.user_id)).toMatchObject({ held_microcredits: 0 });
    expect(await typesOf(task.id)).toEqual(["state", "state", "state", "state", "usage", "error", "done"]);
    await audited();
  });

  it("a task to be cancelled is not tried again", async () => {
    const { db } = test.database;
    const [lost, returned] = [await running(), await running()];
    for (const { id } of [lost, returned]) await requestCancel(db, "admin", id);
    await loseLease(lost.id);
    expect(await reapExpired(db)).toEqual({ requeued: 0, failed: 0, cancelled: 1 });
    expect(await requeueTask(db, returned.id, 1, { delay_ms: 0, note: "shutdown" })).toBe(true);
    for (const { id } of [lost, returned]) expect((await getTask(db, id)).state).toBe("cancelled");
  });
});

describe("requestCancel", () => {
  it("[AG-3] ends a waiting task at once, and again is no error", async () => {
    const { db } = test.database;
    const user = await addUser(db);
    const { id } = await addTask(db, user);
    expect((await requestCancel(db, { user_id: user }, id)).state).toBe("cancelled");
    expect((await requestCancel(db, { user_id: user }, id)).state).toBe("cancelled");
    expect(await typesOf(id)).toEqual(["state", "usage", "done"]);
    expect((await balanceOf(db, user)).held_microcredits).toBe(0);
    await audited();
  });

  it("marks a running task and tells its worker", async () => {
    const { db } = test.database;
    const heard: string[] = [];
    const unlisten = await test.database.listen("cds_cancel", (payload) => heard.push(payload));
    const task = await running();
    const marked = await requestCancel(db, { user_id: task.user_id }, task.id);
    expect(marked).toMatchObject({ state: "running", cancel_requested_at: expect.any(Date) });
    const again = await requestCancel(db, { user_id: task.user_id }, task.id);
    expect(again.cancel_requested_at).toEqual(marked.cancel_requested_at);
    await expect.poll(() => heard).toEqual([task.id, task.id]);
    const call = { call_id: newId("call"), user_id: task.user_id, model: "m", instance_id: "i", hold: 1 };
    await expect(openCall(db, { ...call, task: { task_id: task.id, attempt: 1 } })).rejects.toMatchObject({
      code: "Cancelled",
    });
    await finishTask(db, { task_id: task.id, attempt: 1, state: "cancelled" });
    await unlisten();
  });

  it("shows nobody another user's task", async () => {
    const { db } = test.database;
    const { id } = await addTask(db, await addUser(db));
    const stranger = await addUser(db);
    await expect(requestCancel(db, { user_id: stranger }, id)).rejects.toMatchObject({ code: "NotFound" });
    await expect(requestCancel(db, "admin", "tsk_none")).rejects.toMatchObject({ code: "NotFound" });
    await expect(getTask(db, id, stranger)).rejects.toMatchObject({ code: "NotFound" });
    await expect(getTask(db, "tsk_none")).rejects.toMatchObject({ code: "NotFound" });
    await requestCancel(db, "admin", id);
  });
});
