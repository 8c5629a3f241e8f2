import { sql } from "kysely";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type Claim, claimTasks, finishTask, pauseTask, readEvents } from "#database";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { addTask, addUser } from "#tests/support/queue.ts";
import { claimTask } from "./claim.ts";

let test: TestDatabase;
beforeAll(async () => {
  test = await testDatabase();
});
afterAll(() => test[Symbol.asyncDispose]());
beforeEach(async () => {
  await sql`TRUNCATE users, instances CASCADE`.execute(test.database.db);
});

const claim: Claim = { worker_id: "w1", capacity: 100, per_user: 1, seconds_between: 0, lease_ms: 5000 };
const PRIORITIES = [3, 9, 1, 7, 5, 8];

/** Two tasks of each of some users; answers the ids of each user's first ones in the queue's order. */
async function crowd(): Promise<string[]> {
  const { db } = test.database;
  const firsts: { id: string; priority: number }[] = [];
  for (const priority of PRIORITIES) {
    const user = await addUser(db);
    firsts.push({ id: (await addTask(db, user, { priority })).id, priority });
    await addTask(db, user, { priority });
  }
  return firsts.toSorted((one, other) => other.priority - one.priority).map(({ id }) => id);
}
const idsOf = (tasks: readonly { id: string }[]) => tasks.map(({ id }) => id);

describe("claimTasks", () => {
  it("takes those that claimTask would one after the other, one of each user", async () => {
    const { db } = test.database;
    const order = await crowd();
    expect(idsOf(await claimTasks(db, claim, 3))).toEqual(order.slice(0, 3));
    expect((await claimTask(db, claim))?.id).toBe(order[3]);
    const rest = await claimTasks(db, claim, 10);
    expect(idsOf(rest)).toEqual(order.slice(4));
    expect(rest[0]).toMatchObject({
      state: "running",
      attempt: 1,
      worker_id: "w1",
      user_slot: 0,
      last_seq: 2,
    });
    expect(rest[0]?.lease_until?.getTime()).toBeGreaterThan(Date.now() + 3000);
    expect(await readEvents(db, order[5] ?? "", 1, 10)).toMatchObject([
      { seq: 2, type: "state", state: "running", attempt: 1 },
    ]);
    expect(await claimTasks(db, claim, 10)).toEqual([]);
  });

  it("keeps to the instance's capacity, and to one where users may have several", async () => {
    const { db } = test.database;
    const order = await crowd();
    expect(idsOf(await claimTasks(db, { ...claim, capacity: 2 }, 5))).toEqual(order.slice(0, 2));
    expect(await claimTasks(db, { ...claim, capacity: 2 }, 5)).toEqual([]);
    expect(await claimTasks(db, { ...claim, per_user: 2 }, 5)).toHaveLength(1);
  });

  it("passes over what is paused, and over what somebody has at this moment", async () => {
    const { db } = test.database;
    const order = await crowd();
    const [paused = "", held = ""] = order;
    const { user_id } = await db
      .selectFrom("tasks")
      .select("user_id")
      .where("id", "=", paused)
      .executeTakeFirstOrThrow();
    await pauseTask(db, user_id, paused);
    const claimed = await db.transaction().execute(async (trx) => {
      await trx.selectFrom("tasks").select("id").where("id", "=", held).forNoKeyUpdate().execute();
      return await claimTasks(db, claim, 10);
    });
    expect(idsOf(claimed)).not.toContain(paused);
    expect(idsOf(claimed)).not.toContain(held);
    expect(idsOf(claimed)).toEqual(expect.arrayContaining(order.slice(2)));
  });

  it("[MU-1] gives each task once and each user one at a time, however many claim at once", async () => {
    const { db } = test.database;
    for (let round = 0; round < 4; round += 1) await crowd();
    const seen: string[] = [];
    const worker = async (worker_id: string) => {
      for (let idle = 0; idle < 20; ) {
        const tasks = await claimTasks(db, { ...claim, worker_id }, 5);
        idle = tasks.length === 0 ? idle + 1 : 0;
        for (const { id, attempt } of tasks) {
          seen.push(id);
          expect(await finishTask(db, { task_id: id, attempt, state: "completed" })).toBe(true);
        }
      }
    };
    await Promise.all(["w1", "w2", "w3", "w4"].map(worker));
    expect(seen).toHaveLength(4 * PRIORITIES.length * 2);
    expect(new Set(seen).size).toBe(seen.length);
  });
});
