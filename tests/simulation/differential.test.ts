import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  appendEvents,
  auditLedger,
  claimTask,
  createUser,
  finishTask,
  heartbeat,
  openCall,
  pauseTask,
  reapExpired,
  releaseCall,
  removeInstance,
  requestCancel,
  requeueTask,
  resumeTask,
  setBalance,
  setProjectBudget,
  settleCall,
  setUserBudget,
  sweepOpenCalls,
} from "#database";
import { AGING_PER_MINUTE } from "#database/queue/claim.ts";
import { AppError } from "#schemas";
import { addTask, renewLease } from "#tests/support/queue.ts";
import { Random } from "./random.ts";
import { Store } from "./store.ts";
import type { Limits } from "./store-rows.ts";
import { type VirtualPostgres, virtualPostgres } from "./virtual-postgres.ts";

const SEQUENCES = 300;
const STEPS = 45;
const USERS = ["u1", "u2", "u3"] as const;
const PROJECTS = ["p1", "p2"] as const;
const WORKERS = ["w1", "w2"] as const;
/** Well under a minute is usual; a machine that is busy with other things gets its time. */
const TIME_LIMIT_MS = 15 * 60_000;

let postgres: VirtualPostgres;
beforeAll(async () => {
  postgres = await virtualPostgres();
});
afterAll(() => postgres[Symbol.asyncDispose]());

/** The same operations on PostgreSQL and on the store, one after the other. */
class Twins {
  readonly random: Random;
  readonly store = new Store();
  readonly limits: Limits;
  #made = 0;

  constructor(seed: number) {
    this.random = new Random(seed);
    this.limits = { per_user: this.random.int(1, 3), seconds_between: this.random.pick([0, 0, 5, 60]) };
  }

  async begin(): Promise<void> {
    const { db } = postgres.database;
    await sql`TRUNCATE users, projects, tasks, instances CASCADE`.execute(db);
    await postgres.setClock(0);
    for (const id of USERS) {
      const balance = this.random.int(0, 4) * 150;
      await createUser(db, {
        id,
        username: id,
        password_hash: "-",
        role: "developer",
        initial_balance: balance,
      });
      this.store.addUser(id, balance);
    }
    for (const id of PROJECTS) {
      await db.insertInto("projects").values({ id, owner_id: "u1", name: id }).execute();
      this.store.addProject(id);
    }
    for (let budgets = this.random.int(0, 2); budgets > 0; budgets -= 1) await this.setBudget();
  }

  /** One operation. @returns its name, and what both answered. */
  async step(): Promise<[name: string, real: unknown, simulated: unknown]> {
    const { random } = this;
    const ops = [
      ...[this.pass, this.pass, this.enqueue, this.enqueue, this.claim, this.claim, this.claim, this.renew],
      ...[
        this.append,
        this.finish,
        this.requeue,
        this.cancel,
        this.rest,
        this.reap,
        this.open,
        this.open,
        this.open,
      ],
      ...[this.settle, this.settle, this.release, this.beat, this.sweep, this.grant],
    ] as const;
    const op = random.pick(ops) ?? this.pass;
    return [op.name, ...(await op.call(this))];
  }

  async pass(): Promise<[unknown, unknown]> {
    this.store.now += this.random.pick([1, 250, 999, 1000, 5000, 20_000, 60_000, 61_000]);
    await postgres.setClock(this.store.now);
    return [null, null];
  }

  async enqueue(): Promise<[unknown, unknown]> {
    const { random } = this;
    const user_id = random.pick(USERS);
    const id = `t${String(++this.#made).padStart(3, "0")}`;
    const task = {
      ...{
        id,
        project_id: random.pick(PROJECTS),
        priority: random.int(1, 9),
        max_attempts: random.int(1, 3),
      },
      ...{ budget: random.int(1, 200), pendingLimit: 4 },
      ...(random.chance(0.3) ? { idempotency_key: `k${random.int(1, 3)}` } : {}),
    };
    const real = await answer(addTask(postgres.database.db, user_id, task).then((row) => row.id));
    const simulated = this.store.enqueue({ ...task, user_id });
    return [real, typeof simulated === "string" ? simulated : simulated.task.id];
  }

  async claim(): Promise<[unknown, unknown]> {
    const { random, limits } = this;
    const claim = { worker_id: random.pick(WORKERS), capacity: random.int(1, 3), lease_ms: 5000, ...limits };
    const real = await claimTask(postgres.database.db, claim);
    const simulated = this.store.claim({ ...claim, aging: AGING_PER_MINUTE });
    return [
      real && [real.id, real.attempt, real.user_slot],
      simulated && [simulated.id, simulated.attempt, simulated.user_slot],
    ];
  }

  /** A task, and an attempt of it: mostly its present one. */
  #attempt(): { id: string; attempt: number } {
    const tasks = [...this.store.tasks.values()];
    const running = tasks.filter(({ state }) => state === "running");
    const { id, attempt } = this.random.pick(this.random.chance(0.7) ? running : tasks) ?? {
      id: "none",
      attempt: 1,
    };
    return { id, attempt: this.random.chance(0.8) ? attempt : Math.max(0, attempt - 1) };
  }

  async renew(): Promise<[unknown, unknown]> {
    const { id, attempt } = this.#attempt();
    return [await renewLease(postgres.database.db, id, attempt, 5000), this.store.renew(id, attempt, 5000)];
  }

  async append(): Promise<[unknown, unknown]> {
    const { id: task_id, attempt } = this.#attempt();
    const real = await appendEvents(postgres.database.db, { task_id, attempt }, [
      { type: "text", delta: "x" },
    ]);
    return [real !== null, this.store.append(task_id, attempt, "x")];
  }

  async finish(): Promise<[unknown, unknown]> {
    const { id: task_id, attempt } = this.#attempt();
    const state = this.random.pick(["completed", "failed", "cancelled"] as const);
    const error = state === "failed" ? ({ code: "RunFailed", message: "x" } as const) : undefined;
    const real = await finishTask(postgres.database.db, { task_id, attempt, state, error });
    return [real, this.store.finish(task_id, attempt, state)];
  }

  async requeue(): Promise<[unknown, unknown]> {
    const { id, attempt } = this.#attempt();
    const delay_ms = this.random.pick([0, 1000, 30_000]);
    const real = await requeueTask(postgres.database.db, id, attempt, { delay_ms, note: "x" });
    return [real, this.store.requeue(id, attempt, delay_ms)];
  }

  async cancel(): Promise<[unknown, unknown]> {
    const { id } = this.#attempt();
    const real = await answer(requestCancel(postgres.database.db, "admin", id).then(({ state }) => state));
    return [real, this.store.cancel(id)];
  }

  async rest(): Promise<[unknown, unknown]> {
    const { id } = this.#attempt();
    const paused = this.random.chance(0.5);
    const set = paused ? pauseTask : resumeTask;
    const user_id = this.store.tasks.get(id)?.user_id ?? "u1";
    const real = await answer(set(postgres.database.db, user_id, id).then(({ state }) => state));
    return [real, this.store.setPaused(id, paused)];
  }

  async reap(): Promise<[unknown, unknown]> {
    const own = this.random.chance(0.3) ? [this.#attempt().id] : [];
    const real = await reapExpired(postgres.database.db, own);
    const simulated = { requeued: 0, failed: 0, cancelled: 0 };
    for (const id of this.store.expired(own)) {
      const fate = this.store.reap(id);
      if (fate !== undefined) simulated[fate] += 1;
    }
    return [real, simulated];
  }

  async open(): Promise<[unknown, unknown]> {
    const { random } = this;
    const { id: task_id, attempt } = this.#attempt();
    const id = random.chance(0.9) ? `c${String(++this.#made).padStart(3, "0")}` : this.#call();
    const user_id = this.store.tasks.get(task_id)?.user_id ?? random.pick(USERS);
    const call = { user_id, instance_id: random.pick(WORKERS), hold: random.int(0, 80) };
    const owned = random.chance(0.8) ? { ...call, task: { task_id, attempt } } : call;
    const real = await answer(
      openCall(postgres.database.db, { ...owned, call_id: id, model: "m" }).then(() => "ok"),
    );
    return [real, this.store.open({ ...owned, id })];
  }

  #call(): string {
    return this.random.pick([...this.store.calls.keys()]) ?? "none";
  }

  async settle(): Promise<[unknown, unknown]> {
    const call_id = this.#call();
    const cost = this.random.int(0, 120);
    const tokens = { input_tokens: 1, output_tokens: 1, cached_tokens: 0 };
    const settlement = { call_id, cost, ...tokens, counted_by: "provider", endpoint: "/v1/x" } as const;
    return [await answer(settleCall(postgres.database.db, settlement)), this.store.settle(call_id, cost)];
  }

  async release(): Promise<[unknown, unknown]> {
    const id = this.#call();
    return [await releaseCall(postgres.database.db, id), this.store.release(id)];
  }

  async beat(): Promise<[unknown, unknown]> {
    const id = this.random.pick(WORKERS);
    if (this.random.chance(0.2)) {
      this.store.removeInstance(id);
      return [await removeInstance(postgres.database.db, id), undefined];
    }
    this.store.heartbeat(id);
    return [await heartbeat(postgres.database.db, { id, capacity: 1 }), undefined];
  }

  async sweep(): Promise<[unknown, unknown]> {
    const { random, store } = this;
    const older_than_ms = random.pick([0, 1000, 60_000]);
    const instance_id = random.chance(0.5) ? random.pick(WORKERS) : undefined;
    const real = await sweepOpenCalls(postgres.database.db, { instance_id, older_than_ms });
    return [real, store.deadCalls(older_than_ms, instance_id).filter((id) => store.release(id)).length];
  }

  async grant(): Promise<[unknown, unknown]> {
    const user = this.random.pick(USERS);
    const balance = this.random.int(0, 500);
    const idempotency_key = `g${this.random.int(1, 4)}`;
    const real = answer(
      setBalance(postgres.database.db, user, balance, { idempotency_key }).then(() => "ok"),
    );
    return [await real, this.store.setBalance(user, balance, idempotency_key)];
  }

  async setBudget(): Promise<void> {
    const setting = { limit: this.random.int(0, 400), period: "total" } as const;
    const user = this.store.users.get(this.random.pick(USERS));
    const project = this.store.projects.get(this.random.pick(PROJECTS));
    if (user !== undefined && this.random.chance(0.5)) {
      user.budget_limit = setting.limit;
      await setUserBudget(postgres.database.db, user.id, setting);
    } else if (project !== undefined) {
      project.budget_limit = setting.limit;
      await setProjectBudget(postgres.database.db, project.id, setting);
    }
  }
}

async function answer<T>(doing: Promise<T>): Promise<T | string> {
  try {
    return await doing;
  } catch (error) {
    if (error instanceof AppError) return error.code;
    throw error;
  }
}

describe("[AG-3] the simulated store and PostgreSQL", () => {
  it(
    `answer the same to ${SEQUENCES} random sequences of operations, and end in the same state`,
    async () => {
      const done = new Map<string, number>();
      for (let seed = 1; seed <= SEQUENCES; seed += 1) {
        const twins = new Twins(seed);
        await twins.begin();
        for (let step = 1; step <= STEPS; step += 1) {
          const [name, real, simulated] = await twins.step();
          expect(simulated, `sequence ${seed}, step ${step}: ${name}`).toEqual(real);
          done.set(name, (done.get(name) ?? 0) + 1);
        }
        expect(simulatedState(twins.store), `the end of sequence ${seed}`).toEqual(await realState());
        expect(await auditLedger(postgres.database.db)).toEqual({ users_off: [] });
      }
      expect([...done.values()].every((times) => times > 100)).toBe(true);
    },
    TIME_LIMIT_MS,
  );
});

async function realState() {
  const { db } = postgres.database;
  const tasks = await db.selectFrom("tasks").selectAll().orderBy("id").execute();
  const events = await db.selectFrom("task_events").selectAll().orderBy("task_id").orderBy("seq").execute();
  const calls = await db.selectFrom("llm_calls").selectAll().orderBy("id").execute();
  const users = await db.selectFrom("users").selectAll().orderBy("id").execute();
  const projects = await db.selectFrom("projects").selectAll().orderBy("id").execute();
  const entries = await db
    .selectFrom("ledger_entries")
    .selectAll()
    .orderBy("user_id")
    .orderBy("id")
    .execute();
  const { ms } = postgres;
  return {
    tasks: tasks.map((task) => [
      ...[
        task.id,
        task.user_id,
        task.state,
        task.attempt,
        task.user_slot,
        task.worker_id,
        ms(task.lease_until),
      ],
      ...[ms(task.available_at), ms(task.created_at), ms(task.started_at), ms(task.finished_at)],
      ...[
        task.cancel_requested_at !== null,
        task.paused_at !== null,
        task.budget_microcredits,
        task.budget_left,
        task.last_seq,
      ],
      ...[task.error?.code ?? null],
    ]),
    events: events.map(({ task_id, type }) => [task_id, type]),
    calls: calls.map((call) => [
      call.id,
      call.task_id,
      call.attempt,
      call.state,
      call.hold_microcredits,
      ms(call.created_at),
    ]),
    users: users.map((user) => [user.id, user.token_balance, user.token_held, user.spent_microcredits]),
    projects: projects.map(({ id, spent_microcredits }) => [id, spent_microcredits]),
    entries: entries.map((entry) => [
      entry.user_id,
      entry.kind,
      entry.balance_delta,
      entry.held_delta,
      entry.task_id,
      entry.call_id,
    ]),
  };
}

function simulatedState(store: Store): Awaited<ReturnType<typeof realState>> {
  const tasks = [...store.tasks.values()];
  const calls = [...store.calls.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
  return {
    tasks: tasks.map((task) => [
      ...[task.id, task.user_id, task.state, task.attempt, task.user_slot, task.worker_id, task.lease_until],
      ...[task.available_at, task.created_at, task.started_at, task.finished_at],
      ...[task.cancel_requested, task.paused, task.budget, task.budget_left, task.events.length],
      ...[task.error],
    ]),
    events: tasks.flatMap(({ id, events }) => events.map(({ type }) => [id, type])),
    calls: calls.map((call) => [
      call.id,
      call.task?.id ?? null,
      call.attempt,
      call.state,
      call.hold,
      call.created_at,
    ]),
    users: [...store.users.values()].map(({ id, balance, held, spent }) => [id, balance, held, spent]),
    projects: [...store.projects.values()].map(({ id, spent }) => [id, spent]),
    entries: [...store.users.values()].flatMap(({ id, entries }) =>
      entries.map((entry) => [
        id,
        entry.kind,
        // PostgreSQL knows no negative nothing.
        entry.balance_delta + 0,
        entry.held_delta + 0,
        entry.task_id,
        entry.call_id,
      ]),
    ),
  };
}
