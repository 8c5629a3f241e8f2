import fc from "fast-check";
import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  auditLedger,
  balanceOf,
  type Claim,
  claimTask,
  finishTask,
  getTask,
  openCall,
  projectBudget,
  releaseCall,
  requestCancel,
  requeueTask,
  setBalance,
  setProjectBudget,
  settleCall,
  setUserBudget,
  userBudget,
} from "#database";
import { newId } from "#platform/ids.ts";
import { AppError } from "#schemas";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { type ModelTask, MoneyModel } from "#tests/support/money-model.ts";
import { addTask, addUser } from "#tests/support/queue.ts";

let test: TestDatabase;
beforeAll(async () => {
  test = await testDatabase();
});
afterAll(() => test[Symbol.asyncDispose]());

const claim: Claim = { worker_id: "w1", capacity: 1000, per_user: 3, seconds_between: 0, lease_ms: 60_000 };
const START = 400;

type Step =
  | { do: "grant"; balance: number }
  | { do: "budget"; of: number; limit: number | null; period: "month" | "total" }
  | { do: "dispatch"; project: number; budget: number }
  | { do: "open"; hold: number; task: number | null }
  | { do: "settle"; which: number; cost: number }
  | { do: "release" | "finish" | "requeue" | "cancel"; which: number }
  | { do: "claim" | "month" };

const amount = fc.integer({ min: 0, max: 60 });
const which = fc.nat(50);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 1, arbitrary: fc.record({ do: fc.constant("grant" as const), balance: fc.nat(600) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("budget" as const),
      of: fc.nat(2),
      limit: fc.option(fc.nat(250)),
      period: fc.constantFrom("month" as const, "total" as const),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("dispatch" as const),
      project: fc.nat(1),
      budget: fc.integer({ min: 1, max: 90 }),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("open" as const),
      hold: amount,
      task: fc.option(which, { freq: 3 }),
    }),
  },
  { weight: 6, arbitrary: fc.record({ do: fc.constant("settle" as const), which, cost: fc.nat(150) }) },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constantFrom("release", "finish", "requeue", "cancel"), which }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constantFrom("claim", "claim", "claim", "month") }) },
);

/** One user with two projects, in the database and in memory. */
class Pair {
  readonly user: string;
  readonly projects: readonly [string, string];
  readonly model: MoneyModel;

  constructor(user: string, projects: readonly [string, string]) {
    this.user = user;
    this.projects = projects;
    this.model = new MoneyModel(START, projects);
  }

  static async make(): Promise<Pair> {
    const { db } = test.database;
    await sql`TRUNCATE users, projects, tasks CASCADE`.execute(db);
    const owner_id = await addUser(db, START);
    const projects = [newId("project"), newId("project")] as const;
    for (const id of projects) await db.insertInto("projects").values({ id, owner_id, name: "p" }).execute();
    return new Pair(owner_id, projects);
  }

  async run(one: Step): Promise<void> {
    const { db } = test.database;
    const { model, user } = this;
    switch (one.do) {
      case "grant":
        expect(await codeOf(setBalance(db, user, one.balance, { idempotency_key: newId("call") }))).toBe(
          model.grant(one.balance),
        );
        return;
      case "budget":
        await this.#setBudget(one);
        return;
      case "dispatch": {
        const id = newId("task");
        const project_id = this.projects[one.project === 0 ? 0 : 1];
        const expected = model.dispatch(id, project_id, one.budget);
        expect(await codeOf(addTask(db, user, { id, project_id, budget: one.budget }))).toBe(expected);
        return;
      }
      case "claim": {
        const claimed = await claimTask(db, claim);
        const task = model.tasks.find(({ id }) => id === claimed?.id);
        if (claimed !== null && task !== undefined) {
          Object.assign(task, { state: "running", attempt: claimed.attempt });
        }
        return;
      }
      case "month":
        await monthPasses();
        model.monthPasses();
        return;
      case "open":
        await this.#open(one.hold, one.task === null ? undefined : pick(model.tasks, one.task));
        return;
      case "settle": {
        const call = pick(model.calls, one.which);
        if (call === undefined) return;
        expect(await settle(call.id, one.cost)).toEqual(model.settle(call, one.cost));
        return;
      }
      case "release": {
        const call = pick(model.calls, one.which);
        if (call !== undefined) expect(await releaseCall(db, call.id)).toBe(model.release(call));
        return;
      }
      default: {
        const task = pick(model.tasks, one.which);
        if (task !== undefined) await this.#move(one.do, task);
      }
    }
  }

  async #setBudget({ of, limit, period }: Extract<Step, { do: "budget" }>): Promise<void> {
    const { db } = test.database;
    const name = of === 0 ? "" : this.projects[of === 1 ? 0 : 1];
    this.model.setBudget(name, { limit, period });
    if (name === "") await setUserBudget(db, this.user, { limit, period });
    else await setProjectBudget(db, name, { limit, period });
  }

  async #open(hold: number, task: ModelTask | undefined): Promise<void> {
    const attempt = task?.attempt ?? 0;
    const call = { call_id: newId("call"), user_id: this.user, model: "m", instance_id: "i", hold };
    const owned = task === undefined ? call : { ...call, task: { task_id: task.id, attempt } };
    const expected = this.model.open(call.call_id, hold, task, attempt);
    expect(await codeOf(openCall(test.database.db, owned))).toBe(expected);
  }

  async #move(what: "finish" | "requeue" | "cancel", task: ModelTask): Promise<void> {
    const { db } = test.database;
    const { id, attempt, state } = task;
    if (what === "cancel") {
      await requestCancel(db, "admin", id);
      if (state === "pending") this.model.end(task);
      if (state === "running") task.cancelling = true;
      return;
    }
    const done =
      what === "finish"
        ? await finishTask(db, { task_id: id, attempt, state: "completed" })
        : await requeueTask(db, id, attempt, { delay_ms: 0, note: "x" });
    expect(done).toBe(state === "running");
    if (!done) return;
    if (what === "finish" || task.cancelling) this.model.end(task);
    else task.state = "pending";
  }

  async compare(): Promise<void> {
    const { db } = test.database;
    const { model, user } = this;
    expect(model.passed()).toEqual([]);
    expect(await auditLedger(db)).toEqual({ users_off: [] });
    expect(await balanceOf(db, user)).toEqual({
      balance_microcredits: model.balance,
      held_microcredits: model.held(),
    });
    expect(await userBudget(db, user)).toMatchObject(this.#budgetOf(""));
    for (const name of this.projects) {
      expect(await projectBudget(db, name)).toMatchObject(this.#budgetOf(name));
    }
    for (const { id, left } of model.tasks) expect((await getTask(db, id)).budget_left).toBe(left);
  }

  #budgetOf(name: string) {
    return { ...this.model.budget(name), spent: this.model.spent(name), held: this.model.held(name) };
  }
}

function pick<T>(list: readonly T[], index: number): T | undefined {
  return list[index % Math.max(1, list.length)];
}

function settle(call_id: string, cost: number) {
  const tokens = { input_tokens: 1, output_tokens: 1, cached_tokens: 0 };
  const settlement = { call_id, ...tokens, cost, counted_by: "provider", endpoint: "/v1/x" } as const;
  return settleCall(test.database.db, settlement);
}

async function codeOf(doing: Promise<unknown>): Promise<string> {
  try {
    await doing;
    return "ok";
  } catch (error) {
    if (error instanceof AppError) return error.code;
    throw error;
  }
}

/** As if everything so far had happened in an earlier month: more than its 31 days ago. */
async function monthPasses(): Promise<void> {
  const { db } = test.database;
  await db.transaction().execute(async (trx) => {
    await sql`UPDATE tokens_used SET created_at = created_at - interval '32 days'`.execute(trx);
    for (const table of ["users", "projects"]) {
      await sql`UPDATE ${sql.table(table)} SET spent_since = spent_since - interval '32 days'
        WHERE budget_period = 'month'`.execute(trx);
    }
  });
}

describe("[US-3] money by random steps", () => {
  it("is to the micro-credit what a model of a page says, after every step", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 45 }), async (steps) => {
        const pair = await Pair.make();
        for (const one of steps) {
          await pair.run(one);
          await pair.compare();
        }
      }),
      { numRuns: 40 },
    );
  }, 120_000);

  it("all at once passes no limit at any moment, and adds up", async () => {
    const { db } = test.database;
    const limits = fc.record({ user: fc.nat(300), project: fc.nat(150) });
    const steps = fc.array(
      step.filter((one) => one.do !== "budget" && one.do !== "month" && one.do !== "grant"),
      { minLength: 16, maxLength: 48 },
    );
    await fc.assert(
      fc.asyncProperty(limits, steps, async (limit, list) => {
        const { user, projects } = await Pair.make();
        await setUserBudget(db, user, { limit: limit.user, period: "month" });
        await setProjectBudget(db, projects[0], { limit: limit.project, period: "total" });
        const actor = new Actor(user, projects);
        const look = async () => {
          const budgets = [await userBudget(db, user), await projectBudget(db, projects[0])];
          for (const { limit: ceiling, spent, held } of budgets) {
            expect(spent + held).toBeLessThanOrEqual(ceiling ?? 0);
          }
          expect(await auditLedger(db)).toEqual({ users_off: [] });
        };
        for (let at = 0; at < list.length; at += 12) {
          await Promise.all([...list.slice(at, at + 12).map((one) => actor.run(one)), look()]);
        }
        await look();
      }),
      { numRuns: 25 },
    );
  }, 120_000);
});

/** Does the same without knowing what must come of it. */
class Actor {
  readonly #user: string;
  readonly #projects: readonly [string, string];
  readonly #tasks: { id: string; attempt: number }[] = [];
  readonly #calls: string[] = [];

  constructor(user: string, projects: readonly [string, string]) {
    this.#user = user;
    this.#projects = projects;
  }

  async run(one: Step): Promise<void> {
    const code = await codeOf(this.#try(one));
    expect(["ok", "InsufficientBalance", "BudgetExceeded", "Cancelled", "NotFound"]).toContain(code);
  }

  async #try(one: Step): Promise<void> {
    const { db } = test.database;
    if (one.do === "dispatch") {
      const project_id = this.#projects[one.project === 0 ? 0 : 1];
      await addTask(db, this.#user, { project_id, budget: one.budget });
    } else if (one.do === "claim") {
      const claimed = await claimTask(db, claim);
      if (claimed !== null) this.#tasks.push({ id: claimed.id, attempt: claimed.attempt });
    } else if (one.do === "open") {
      const task = one.task === null ? undefined : pick(this.#tasks, one.task);
      const call = { call_id: newId("call"), user_id: this.#user, model: "m", instance_id: "i" };
      this.#calls.push(call.call_id);
      const owner = task === undefined ? {} : { task: { task_id: task.id, attempt: task.attempt } };
      await openCall(db, { ...call, hold: one.hold, ...owner });
    } else if (one.do === "settle") {
      await settle(pick(this.#calls, one.which) ?? "llm_none", one.cost);
    } else if (one.do === "release") {
      await releaseCall(db, pick(this.#calls, one.which) ?? "llm_none");
    } else if (one.do === "finish" || one.do === "requeue" || one.do === "cancel") {
      const task = pick(this.#tasks, one.which);
      if (task === undefined) return;
      const { id, attempt } = task;
      if (one.do === "finish") await finishTask(db, { task_id: id, attempt, state: "completed" });
      if (one.do === "requeue") await requeueTask(db, id, attempt, { delay_ms: 0, note: "x" });
      if (one.do === "cancel") await requestCancel(db, "admin", id);
    }
  }
}
