import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  appendEvents,
  auditLedger,
  type Claim,
  claimTask,
  finishTask,
  getTask,
  listTasks,
  readEvents,
  reapExpired,
  requestCancel,
  requeueTask,
  type TaskRow,
} from "#database";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { addTask, addUser } from "#tests/support/queue.ts";

let test: TestDatabase;
beforeAll(async () => {
  test = await testDatabase();
});
afterAll(() => test[Symbol.asyncDispose]());

const claim: Claim = { worker_id: "w1", capacity: 1000, per_user: 1, seconds_between: 0, lease_ms: 5000 };

/** A task whose only attempt runs, on a lease that is over. */
async function lost(): Promise<TaskRow> {
  const { db } = test.database;
  const task = await addTask(db, await addUser(db), { priority: 32_000, max_attempts: 1 });
  const claimed = await claimTask(db, claim);
  expect(claimed?.id).toBe(task.id);
  await sql`UPDATE tasks SET lease_until = now() - interval '1 second' WHERE id = ${task.id}`.execute(db);
  return task;
}

async function audited(): Promise<void> {
  expect(await auditLedger(test.database.db)).toEqual({ users_off: [] });
}

describe("races", () => {
  it("finish against cancel against reap against put-back: exactly one end", async () => {
    const { db } = test.database;
    for (let round = 0; round < 25; round += 1) {
      const task = await lost();
      const end = { task_id: task.id, attempt: 1 };
      await Promise.all([
        finishTask(db, { ...end, state: "completed" }),
        requestCancel(db, "admin", task.id),
        reapExpired(db),
        finishTask(db, { ...end, state: "failed", error: { code: "RunFailed", message: "x" } }),
        round % 2 === 0 ? requeueTask(db, task.id, 1, { delay_ms: 0, note: "x" }) : reapExpired(db),
        appendEvents(db, end, [{ type: "text", delta: "x" }]),
      ]);
      if ((await getTask(db, task.id)).state === "pending") await requestCancel(db, "admin", task.id);
      const events = await readEvents(db, task.id, 0, 100);
      expect(events.filter(({ type }) => type === "done")).toHaveLength(1);
      expect(events.at(-1)?.type).toBe("done");
      expect(events.map(({ seq }) => seq)).toEqual(events.map((_, index) => index + 1));
    }
    await audited();
  });

  it("claim against cancel: a cancelled task never runs", async () => {
    const { db } = test.database;
    for (let round = 0; round < 20; round += 1) {
      const user = await addUser(db);
      const [first] = [await addTask(db, user, { priority: 32_000 }), await addTask(db, user)];
      const [claimed, cancelled] = await Promise.all([
        claimTask(db, claim),
        requestCancel(db, { user_id: user }, first.id),
      ]);
      if (cancelled.state === "cancelled") expect(claimed?.id).not.toBe(first.id);
      const { rows } = await sql<{ id: string; attempt: number }>`
        SELECT id, attempt FROM tasks WHERE state = 'running'`.execute(db);
      for (const { id, attempt } of rows) await finishTask(db, { task_id: id, attempt, state: "cancelled" });
      const left = await listTasks(db, { user_id: user, state: "pending", limit: 5 });
      for (const { id } of left.tasks) await requestCancel(db, "admin", id);
    }
    await audited();
  });
});
