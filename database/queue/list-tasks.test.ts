import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { listTasks } from "#database";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { addTask, addUser } from "#tests/support/queue.ts";

let test: TestDatabase;
beforeAll(async () => {
  test = await testDatabase();
});
afterAll(() => test[Symbol.asyncDispose]());

describe("listTasks", () => {
  it("[AG-3] [DB-6] pages from new to old without a gap, filtered", async () => {
    const { db } = test.database;
    const user = await addUser(db);
    const ids: string[] = [];
    for (let n = 0; n < 7; n += 1) {
      ids.unshift((await addTask(db, user, { project_id: n % 2 === 0 ? "prj_even" : "prj_odd" })).id);
    }
    const seen: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await listTasks(db, { user_id: user, limit: 3, cursor });
      seen.push(...page.tasks.map(({ id }) => id));
      cursor = page.next_cursor;
    } while (cursor !== undefined);
    expect(seen).toEqual(ids);
    expect((await listTasks(db, { user_id: user, project_id: "prj_odd", limit: 10 })).tasks).toHaveLength(3);
    expect((await listTasks(db, { user_id: user, state: "running", limit: 10 })).tasks).toEqual([]);
    await expect(listTasks(db, { user_id: user, limit: 3, cursor: "nonsense" })).rejects.toMatchObject({
      code: "InvalidParams",
    });
  });
});
