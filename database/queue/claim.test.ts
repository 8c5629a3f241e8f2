import { sql } from "kysely";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import {
  type Claim,
  claimTask,
  finishTask,
  heartbeat,
  queueView,
  removeInstance,
  requeueTask,
} from "#database";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { addTask, addUser } from "#tests/support/queue.ts";

let test: TestDatabase;
beforeAll(async () => {
  test = await testDatabase();
});
afterAll(() => test[Symbol.asyncDispose]());
beforeEach(async () => {
  await sql`TRUNCATE users, instances CASCADE`.execute(test.database.db);
});

const claim: Claim = { worker_id: "w1", capacity: 100, per_user: 1, seconds_between: 0, lease_ms: 5000 };
const limits = { capacity: 100, per_user: 1, seconds_between: 0 };

/** Make a task (or a user's start) look as if it had happened earlier. */
async function earlier(id: string, column: "created_at" | "started_at", seconds: number): Promise<void> {
  await sql`UPDATE tasks SET ${sql.ref(column)} = clock_timestamp() - make_interval(secs => ${seconds}::float8)
    WHERE id = ${id}`.execute(test.database.db);
}

describe("claimTask", () => {
  it("answers null when nothing waits, and the whole row otherwise", async () => {
    const { db } = test.database;
    expect(await claimTask(db, claim)).toBeNull();
    const task = await addTask(db, await addUser(db));
    const claimed = await claimTask(db, claim);
    expect(claimed).toMatchObject({
      id: task.id,
      state: "running",
      attempt: 1,
      worker_id: "w1",
      user_slot: 0,
      prompt: "Say hello.",
      budget_left: 1000,
      last_seq: 2,
    });
    expect(claimed?.lease_until?.getTime()).toBeGreaterThan(Date.now() + 3000);
    expect(await claimTask(db, claim)).toBeNull();
  });

  it("[MU-1] never runs more of a user's tasks than allowed, however many claim at once", async () => {
    const { db } = test.database;
    const users = await Promise.all(Array.from({ length: 5 }, () => addUser(db)));
    for (const user of users) for (let n = 0; n < 12; n += 1) await addTask(db, user);
    const per_user = 2;
    const running = new Map<string, number>();
    let most = 0;
    let done = 0;
    const worker = async (name: string) => {
      while (done < 60) {
        const task = await claimTask(db, { ...claim, worker_id: name, per_user });
        if (task === null) {
          await new Promise((resolve) => setTimeout(resolve, 2));
          continue;
        }
        const now = (running.get(task.user_id) ?? 0) + 1;
        running.set(task.user_id, now);
        most = Math.max(most, now);
        const { rows } = await sql<{ most: number }>`SELECT coalesce(max(n), 0) AS most FROM
          (SELECT count(*) AS n FROM tasks WHERE state = 'running' GROUP BY user_id) _`.execute(db);
        most = Math.max(most, rows[0]?.most ?? 0);
        running.set(task.user_id, (running.get(task.user_id) ?? 0) - 1);
        expect(await finishTask(db, { task_id: task.id, attempt: task.attempt, state: "completed" })).toBe(
          true,
        );
        done += 1;
      }
    };
    await Promise.all(Array.from({ length: 8 }, (_, index) => worker(`w${index}`)));
    expect(most).toBeLessThanOrEqual(per_user);
    expect(done).toBe(60);
  });

  it("keeps an instance within its capacity and gives parallel places of their own", async () => {
    const { db } = test.database;
    const user = await addUser(db);
    for (let n = 0; n < 4; n += 1) await addTask(db, user);
    const claims = await Promise.all(
      Array.from({ length: 6 }, () => claimTask(db, { ...claim, capacity: 2, per_user: 3 })),
    );
    expect(claims.filter((task) => task !== null)).toHaveLength(2);
    const other = await claimTask(db, { ...claim, worker_id: "w2", capacity: 2, per_user: 3 });
    const slots = [...claims, other].flatMap((task) => task?.user_slot ?? []);
    expect(slots.sort()).toEqual([0, 1, 2]);
    expect(await claimTask(db, { ...claim, worker_id: "w2", capacity: 2, per_user: 3 })).toBeNull();
  });

  it("[MU-5] keeps a user's starts apart, over instances, but lets a retry start at once", async () => {
    const { db } = test.database;
    const user = await addUser(db);
    const [first, second] = [await addTask(db, user), await addTask(db, user)];
    const slow: Claim = { ...claim, seconds_between: 30, per_user: 2 };
    const started = await claimTask(db, slow);
    expect(started?.id).toBe(first.id);
    expect(await claimTask(db, { ...slow, worker_id: "w2" })).toBeNull();
    await requeueTask(db, first.id, 1, { delay_ms: 0, note: "again" });
    const again = await claimTask(db, slow);
    expect(again).toMatchObject({ id: first.id, attempt: 2 });
    expect(again?.started_at).toEqual(started?.started_at);
    expect(await claimTask(db, slow)).toBeNull();
    await earlier(first.id, "started_at", 31);
    expect((await claimTask(db, slow))?.id).toBe(second.id);
  });

  it("waits out a back-off without holding up the user's other tasks", async () => {
    const { db } = test.database;
    const user = await addUser(db);
    const [first, second] = [await addTask(db, user, { priority: 9 }), await addTask(db, user)];
    await claimTask(db, claim);
    await requeueTask(db, first.id, 1, { delay_ms: 60_000, note: "later" });
    expect((await claimTask(db, claim))?.id).toBe(second.id);
    expect(await claimTask(db, { ...claim, per_user: 2 })).toBeNull();
  });
});

describe("the order of the queue", () => {
  /** What is claimed one after the other, ending each at once. */
  async function drain(): Promise<string[]> {
    const { db } = test.database;
    const order: string[] = [];
    for (let task = await claimTask(db, claim); task !== null; task = await claimTask(db, claim)) {
      order.push(task.id);
      await finishTask(db, { task_id: task.id, attempt: task.attempt, state: "completed" });
    }
    return order;
  }

  it("[MU-5] takes users in turn, whoever queued more", async () => {
    const { db } = test.database;
    const [a, b, c] = [await addUser(db), await addUser(db), await addUser(db)];
    const a1 = await addTask(db, a);
    const a2 = await addTask(db, a);
    const a3 = await addTask(db, a);
    const b1 = await addTask(db, b);
    const b2 = await addTask(db, b);
    const c1 = await addTask(db, c);
    const shown = await queueView(
      db,
      [a1, a2, a3, b1, b2, c1].map(({ id }) => id),
      limits,
    );
    const expected = [a1, b1, c1, a2, b2, a3].map(({ id }) => id);
    expect(
      [...shown.keys()].sort((x, y) => (shown.get(x)?.position ?? 0) - (shown.get(y)?.position ?? 0)),
    ).toEqual(expected);
    expect(await drain()).toEqual(expected);
  });

  it("puts priority first, and a minute of waiting makes up for a point of it", async () => {
    const { db } = test.database;
    const low = await addTask(db, await addUser(db), { priority: 3 });
    const high = await addTask(db, await addUser(db), { priority: 5 });
    const old = await addTask(db, await addUser(db), { priority: 3 });
    await earlier(old.id, "created_at", 185);
    expect(await drain()).toEqual([old.id, high.id, low.id]);
  });

  it("does not let a flood that queued earlier keep a newcomer waiting", async () => {
    const { db } = test.database;
    const flooder = await addUser(db);
    const flood = [];
    for (let n = 0; n < 5; n += 1) flood.push(await addTask(db, flooder));
    for (const { id } of flood) await earlier(id, "created_at", 600);
    const first = await claimTask(db, claim);
    await finishTask(db, { task_id: first?.id ?? "", attempt: 1, state: "completed" });
    const newcomer = await addTask(db, await addUser(db));
    expect((await queueView(db, [newcomer.id], limits)).get(newcomer.id)).toEqual({ position: 1 });
    expect((await drain())[0]).toBe(newcomer.id);
  });

  it("prefers the user with fewer running", async () => {
    const { db } = test.database;
    const [busy, idle] = [await addUser(db), await addUser(db)];
    await addTask(db, busy);
    const two = { ...claim, per_user: 2 };
    await claimTask(db, two);
    await addTask(db, busy);
    const task = await addTask(db, idle);
    expect((await claimTask(db, two))?.id).toBe(task.id);
  });

  it("shows the task that is claimed next at position 1, whatever the mixture", async () => {
    const { db } = test.database;
    const users = await Promise.all(Array.from({ length: 6 }, () => addUser(db)));
    let seed = 42;
    const random = (below: number) => {
      seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
      return Math.floor((seed / 2 ** 31) * below);
    };
    const ids: string[] = [];
    for (let n = 0; n < 40; n += 1) {
      const { id } = await addTask(db, users[random(6)] ?? "", { priority: 1 + random(9) });
      await earlier(id, "created_at", random(600));
      ids.push(id);
    }
    const two = { per_user: 2, seconds_between: 0 };
    for (let n = 0; n < 40; n += 1) {
      const view = await queueView(db, ids, { ...two, capacity: 100 });
      expect([...view.values()].map(({ position }) => position).sort((x = 0, y = 0) => x - y)).toEqual(
        Array.from({ length: 40 - n }, (_, index) => index + 1),
      );
      const task = await claimTask(db, { ...claim, ...two });
      expect(view.get(task?.id ?? "")?.position).toBe(1);
      if (
        random(3) > 0 ||
        (await sql`SELECT 1 FROM tasks WHERE state = 'running'`.execute(db)).rows.length > 8
      ) {
        const { rows } = await sql<{ id: string }>`SELECT id FROM tasks WHERE state = 'running'`.execute(db);
        for (const { id } of rows) await finishTask(db, { task_id: id, attempt: 1, state: "completed" });
      }
    }
  });
});

describe("queueView", () => {
  it("[MU-5] names each of the five reasons", async () => {
    const { db } = test.database;
    const user = await addUser(db);
    const [first, second] = [await addTask(db, user), await addTask(db, user)];
    const reason = async (id: string, given: Partial<typeof limits> = {}) =>
      (await queueView(db, [id], { ...limits, ...given })).get(id)?.reason;

    expect(await reason(first.id)).toBeUndefined();
    expect(await reason(second.id)).toBe("user_already_active");
    expect(await reason(second.id, { per_user: 2, seconds_between: 30 })).toBe("rate_limit_exceeded");
    await claimTask(db, claim);
    expect(await reason(second.id)).toBe("user_already_active");
    await finishTask(db, { task_id: first.id, attempt: 1, state: "completed" });
    expect(await reason(second.id)).toBeUndefined();
    expect(await reason(second.id, { seconds_between: 30 })).toBe("rate_limit_exceeded");

    const other = await addTask(db, await addUser(db), { priority: 9 });
    expect((await claimTask(db, claim))?.id).toBe(other.id);
    expect(await reason(second.id, { capacity: 1 })).toBe("max_concurrent_reached");
    expect(await reason(second.id, { capacity: 2 })).toBeUndefined();

    await heartbeat(db, { id: "w1", capacity: 1 });
    expect(await reason(second.id)).toBe("max_concurrent_reached");
    await heartbeat(db, { id: "w2", capacity: 1, blocked_reason: "memory_threshold_exceeded" });
    expect(await reason(second.id)).toBe("max_concurrent_reached");
    await heartbeat(db, { id: "w1", capacity: 5, blocked_reason: "memory_threshold_exceeded" });
    expect(await reason(second.id)).toBe("memory_threshold_exceeded");
    await removeInstance(db, "w2");
    await heartbeat(db, { id: "w1", capacity: 5, blocked_reason: "disk_threshold_exceeded" });
    expect(await reason(second.id)).toBe("disk_threshold_exceeded");
    await sql`UPDATE instances SET heartbeat_at = now() - interval '16 seconds'`.execute(db);
    expect(await reason(second.id)).toBeUndefined();
    await heartbeat(db, { id: "w1", capacity: 5, blocked_reason: null });
    expect(await reason(second.id)).toBeUndefined();
  });

  it("has no entry for what does not wait, and asks nothing for nothing", async () => {
    const { db } = test.database;
    const task = await addTask(db, await addUser(db));
    await claimTask(db, claim);
    expect(await queueView(db, [task.id, "tsk_unknown"], limits)).toEqual(new Map());
    expect(await queueView(db, [], limits)).toEqual(new Map());
  });

  it("forgets instances gone for long", async () => {
    const { db } = test.database;
    await heartbeat(db, { id: "old", capacity: 1 });
    await sql`UPDATE instances SET heartbeat_at = now() - interval '2 hours'`.execute(db);
    await heartbeat(db, { id: "new", capacity: 1 });
    expect(await db.selectFrom("instances").select("id").execute()).toEqual([{ id: "new" }]);
  });
});
