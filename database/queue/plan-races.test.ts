import { sql } from "kysely";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import {
  auditLedger,
  balanceOf,
  claimTask,
  finishTask,
  getTask,
  openCall,
  pauseTask,
  planTasks,
  readEvents,
  reapExpired,
  requestCancel,
  requestCancelPlan,
  resumeTask,
  settleCall,
  type TaskRow,
} from "#database";
import { newId } from "#platform/ids.ts";
import { isTerminal } from "#schemas";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { addPlan, addTask, addUser } from "#tests/support/queue.ts";

let test: TestDatabase;
beforeAll(async () => {
  test = await testDatabase();
});
afterAll(() => test[Symbol.asyncDispose]());
beforeEach(async () => {
  await sql`TRUNCATE users CASCADE`.execute(test.database.db);
});

const claim = { worker_id: "w", capacity: 1000, per_user: 20, seconds_between: 0, lease_ms: 60_000 };

/** Numbers below a bound, the same for the same seed. */
function seeded(seed: number): (below: number) => number {
  let state = seed * 2_654_435_761 + 1;
  return (below) => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
    return Math.floor((state / 2 ** 31) * below);
  };
}

async function claimAll(): Promise<TaskRow[]> {
  const claimed: TaskRow[] = [];
  for (;;) {
    const task = await claimTask(test.database.db, claim);
    if (task === null) return claimed;
    claimed.push(task);
  }
}

const end = (
  task: Pick<TaskRow, "id" | "attempt">,
  state: "completed" | "failed" | "cancelled" = "completed",
) => finishTask(test.database.db, { task_id: task.id, attempt: task.attempt, state });

/** Whatever happened: each has one end, the log has no gap, and nothing is held. */
async function allEnded(user: string, plan_id: string): Promise<TaskRow[]> {
  const { db } = test.database;
  const tasks = await planTasks(db, plan_id);
  for (const { id, state, budget_left } of tasks) {
    expect(isTerminal(state)).toBe(true);
    expect(budget_left).toBe(0);
    const events = await readEvents(db, id, 0, 1000);
    expect(events.filter(({ type }) => type === "done")).toHaveLength(1);
    expect(events.at(-1)).toMatchObject({ type: "done", state });
    expect(events.map(({ seq }) => seq)).toEqual(events.map((_, nth) => nth + 1));
  }
  expect((await balanceOf(db, user)).held_microcredits).toBe(0);
  expect(await auditLedger(db)).toEqual({ users_off: [] });
  return tasks;
}

describe("races within a plan", () => {
  it("steps that end at the same moment free the one after them once", async () => {
    const { db } = test.database;
    for (let round = 0; round < 20; round += 1) {
      const user = await addUser(db);
      const { plan, ids } = await addPlan(db, user, { a: [], b: [], c: [], d: ["a", "b", "c"] });
      const running = await claimAll();
      expect(running).toHaveLength(3);
      expect(await Promise.all(running.map((task) => end(task)))).toEqual([true, true, true]);
      const [next] = await claimAll();
      expect(next?.id).toBe(ids.d);
      expect((await readEvents(db, ids.d, 0, 10)).map(({ type }) => type)).toEqual([
        "state",
        "state",
        "state",
      ]);
      await end(next as TaskRow);
      await allEnded(user, plan.id);
    }
  });

  it("one completes while another fails: what needs both ends, once", async () => {
    const { db } = test.database;
    for (let round = 0; round < 20; round += 1) {
      const user = await addUser(db);
      const { plan, ids } = await addPlan(db, user, { a: [], b: [], c: ["a", "b"], d: ["c"], e: ["a"] });
      const [a, b] = (await claimAll()) as [TaskRow, TaskRow];
      await Promise.all([end(a), end(b, round % 2 === 0 ? "failed" : "cancelled")]);
      const [e] = await claimAll();
      expect(e?.id).toBe(ids.e);
      await end(e as TaskRow);
      const states = (await allEnded(user, plan.id)).map(({ state }) => state);
      expect([states[2], states[3]]).toEqual(["cancelled", "cancelled"]);
    }
  });

  it("cancelling against becoming free: it ends, or runs and is told so", async () => {
    const { db } = test.database;
    for (let round = 0; round < 20; round += 1) {
      const user = await addUser(db);
      const { plan, ids } = await addPlan(db, user, { a: [], b: ["a"], c: ["b"] });
      const [a] = (await claimAll()) as [TaskRow];
      const cancel = () =>
        round % 2 === 0
          ? requestCancel(db, { user_id: user }, ids.b)
          : requestCancelPlan(db, { user_id: user }, plan.id);
      const [, , claimed] = await Promise.all([end(a), cancel(), claimTask(db, claim)]);
      for (const task of [claimed, ...(await claimAll())]) {
        if (task === null) continue;
        expect((await getTask(db, task.id)).cancel_requested_at).not.toBeNull();
        await end(task, "cancelled");
      }
      const states = (await allEnded(user, plan.id)).map(({ state }) => state);
      expect(states).toEqual(["completed", "cancelled", "cancelled"]);
    }
  });

  it("a plan is cancelled while its steps pay for calls, end and are taken away: no deadlock, no credit lost", async () => {
    const { db } = test.database;
    for (let round = 0; round < 15; round += 1) {
      const user = await addUser(db);
      const order = { a: [], b: [], c: ["a"], d: ["a", "b"] };
      const { plan } = await addPlan(db, user, order, { max_attempts: 1 });
      const [a, b] = (await claimAll()) as [TaskRow, TaskRow];
      const pay = async ({ id, attempt }: TaskRow) => {
        const call = { call_id: newId("call"), user_id: user, model: "m", instance_id: "i", hold: 50 };
        const opened = await openCall(db, { ...call, task: { task_id: id, attempt } }).then(
          () => true,
          () => false,
        );
        const tokens = {
          input_tokens: 1,
          output_tokens: 1,
          cached_tokens: 0,
          counted_by: "provider" as const,
        };
        if (!opened) return;
        await settleCall(db, { call_id: call.call_id, ...tokens, cost: 30, endpoint: "/v1/x" });
      };
      await sql`UPDATE tasks SET lease_until = now() - interval '1 s' WHERE id = ${b.id}`.execute(db);
      await Promise.all([
        pay(a),
        pay(b),
        end(a, round % 2 === 0 ? "completed" : "failed"),
        requestCancelPlan(db, "admin", plan.id),
        reapExpired(db),
        requestCancel(db, "admin", b.id),
      ]);
      for (const { id, state, attempt } of await planTasks(db, plan.id)) {
        if (state === "running") await end({ id, attempt }, "cancelled");
      }
      await allEnded(user, plan.id);
    }
  });

  it("pausing against claiming: it rests in the line or rests running, and is never both", async () => {
    const { db } = test.database;
    for (let round = 0; round < 25; round += 1) {
      const user = await addUser(db);
      const { id } = await addTask(db, user);
      const other = await addTask(db, user);
      const [paused, ...claims] = await Promise.all([
        pauseTask(db, user, id),
        claimTask(db, claim),
        claimTask(db, claim),
      ]);
      const taken = claims.some((task) => task?.id === id);
      expect(paused.state).toBe(taken ? "running" : "pending");
      expect((await getTask(db, other.id)).state).toBe("running");
      await resumeTask(db, user, id);
      const rest = [...claims, ...(await claimAll())].filter((task) => task !== null);
      expect(new Set(rest.map((task) => task.id)).size).toBe(2);
      await Promise.all(rest.map((task) => end(task)));
      expect((await balanceOf(db, user)).held_microcredits).toBe(0);
    }
  });
});

/** The names of a plan's steps with a random choice of earlier ones each, given in a random order. */
function randomOrder(random: (below: number) => number): Record<string, string[]> {
  const names = Array.from({ length: 1 + random(9) }, (_, nth) => `s${nth}`);
  const steps = names.map(
    (name, nth) => [name, names.slice(0, nth).filter(() => random(3) === 0)] as [string, string[]],
  );
  return Object.fromEntries(
    steps
      .map((step) => ({ step, at: random(1000) }))
      .sort((x, y) => x.at - y.at)
      .map(({ step }) => step),
  );
}

describe("any plan with any outcomes", () => {
  /** Let several workers and a meddling user go at a plan until nothing of it is left. */
  async function play(seed: number): Promise<void> {
    const { db } = test.database;
    const random = seeded(seed);
    const user = await addUser(db);
    const order = randomOrder(random);
    const { plan, tasks } = await addPlan(db, user, order, { max_attempts: 2, may_plan: true });
    const ids = tasks.map(({ id }) => id);
    const plansLeft = { count: 2 };
    for (let left = 1; left > 0; ) {
      // One that was being paused at that moment was passed over.
      await reapExpired(db);
      const running = await claimAll();
      // Nothing starts before all it comes after has completed.
      for (const task of running) {
        const { rows } = await sql`SELECT 1 FROM task_dependencies d JOIN tasks p ON p.id = d.depends_on
          WHERE d.task_id = ${task.id} AND p.state <> 'completed'`.execute(db);
        expect(rows).toEqual([]);
      }
      const acts: Promise<unknown>[] = running.map((task) => conclude(task, random(12), plansLeft));
      const some = ids[random(ids.length)] ?? "";
      const whim = random(8);
      if (whim === 0) acts.push(requestCancel(db, { user_id: user }, some));
      if (whim === 1) acts.push(pauseTask(db, user, some), resumeTask(db, user, some));
      await Promise.all(acts);
      const present = await planTasks(db, plan.id);
      for (const { id, paused_at } of present) if (paused_at !== null) await resumeTask(db, user, id);
      left = present.filter(({ state }) => !isTerminal(state)).length;
    }
    const ended = await allEnded(user, plan.id);
    await faithful(ended);
  }

  /** End a running step in one of the ways there are. */
  async function conclude(task: TaskRow, way: number, plansLeft: { count: number }): Promise<void> {
    const { db } = test.database;
    const finish = { task_id: task.id, attempt: task.attempt };
    if (way === 0) await end(task, "failed");
    else if (way === 1) await end(task, "cancelled");
    else if (way === 2) {
      await sql`UPDATE tasks SET lease_until = now() - interval '1 s' WHERE id = ${task.id}`.execute(db);
      await Promise.all([reapExpired(db), reapExpired(db)]);
    } else if (way === 3 && task.may_plan && plansLeft.count > 0) {
      plansLeft.count -= 1;
      const prompt = "More.";
      const steps = [
        { id: "x", agent: "CodeAgent", prompt },
        { id: "y", agent: "CodeAgent", prompt, after: ["x"] },
        { id: "z", agent: "CodeAgent", prompt },
      ];
      await finishTask(db, { ...finish, state: "completed", plan: { steps, pendingLimit: 1000 } });
    } else await Promise.all([end(task), end(task)]);
  }

  /** A step completed only if all before it did, and one that never started needs somebody to blame. */
  async function faithful(tasks: readonly TaskRow[]): Promise<void> {
    const { rows } = await sql<{ task_id: string; depends_on: string }>`
      SELECT d.* FROM task_dependencies d WHERE task_id = ANY(${tasks.map(({ id }) => id)}::text[])`.execute(
      test.database.db,
    );
    const states = new Map(tasks.map(({ id, state }) => [id, state]));
    for (const { id, state, started_at, error } of tasks) {
      const before = rows
        .filter(({ task_id }) => task_id === id)
        .map(({ depends_on }) => states.get(depends_on));
      if (state === "completed") expect(before.every((each) => each === "completed")).toBe(true);
      if (error?.code === "Cancelled" && started_at === null)
        expect(before.some((each) => each !== "completed")).toBe(true);
    }
  }

  it("every task ends exactly once, and the ledger is the balances", async () => {
    for (let seed = 1; seed <= 40; seed += 1) await play(seed);
  });

  it("with several plans at once", async () => {
    const users = await Promise.all(Array.from({ length: 5 }, () => addUser(test.database.db)));
    const plans = await Promise.all(
      users.map((user, nth) => addPlan(test.database.db, user, randomOrder(seeded(100 + nth)))),
    );
    const worker = async () => {
      for (let task = await claimTask(test.database.db, claim); task !== null; ) {
        await end(task, task.priority % 2 === 0 ? "failed" : "completed");
        task = await claimTask(test.database.db, claim);
      }
    };
    await Promise.all([worker(), worker(), worker()]);
    await worker();
    for (const [nth, { plan }] of plans.entries()) {
      const tasks = await allEnded(users[nth] ?? "", plan.id);
      expect(new Set(tasks.map(({ state }) => state))).toEqual(new Set(["completed"]));
    }
  });
});
