import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import {
  appendEvents,
  claimTask,
  finishTask,
  getTask,
  pauseTask,
  queueView,
  readEvents,
  reapExpired,
  requestCancel,
  requestCancelPlan,
  requeueTask,
  resumeTask,
  sessionHistory,
} from "#database";
import { createProject, putBlobs } from "#database/projects/index.ts";
import { newId } from "#platform/ids.ts";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { addPlan, addTask, addUser, renewLease } from "#tests/support/queue.ts";

vi.setConfig({ expect: { poll: { timeout: 30_000 } } });

let test: TestDatabase;
beforeAll(async () => {
  test = await testDatabase();
});
afterAll(() => test[Symbol.asyncDispose]());

const limits = { capacity: 1000, per_user: 1, seconds_between: 0 };
const claim = () => claimTask(test.database.db, { ...limits, worker_id: "w", lease_ms: 60_000 });

describe("pauseTask", () => {
  it("takes a waiting task out of the line; it comes back as old as it is", async () => {
    const { db } = test.database;
    const user = await addUser(db);
    const [old, young] = [await addTask(db, user), await addTask(db, user)];
    expect(await pauseTask(db, user, old.id)).toMatchObject({
      state: "pending",
      paused_at: expect.any(Date),
    });
    const again = await pauseTask(db, user, old.id);
    expect(again.last_seq).toBe(2);
    expect(await queueView(db, [old.id, young.id], limits)).toEqual(
      new Map([
        [old.id, { reason: "paused" }],
        [young.id, { position: 1 }],
      ]),
    );
    await resumeTask(db, user, old.id);
    expect((await resumeTask(db, user, old.id)).last_seq).toBe(3);
    expect((await readEvents(db, old.id, 1, 5)).map((event) => "note" in event && event.note)).toEqual([
      "Paused.",
      "Goes on.",
    ]);
    expect((await claim())?.id).toBe(old.id);
    await finishTask(db, { task_id: old.id, attempt: 1, state: "completed" });
    await pauseTask(db, user, young.id);
    expect(await claim()).toBeNull();
    expect(await requestCancel(db, "admin", young.id)).toMatchObject({ state: "cancelled", paused_at: null });
    expect((await pauseTask(db, user, young.id)).paused_at).toBeNull();
  });

  it("marks a running task, tells its worker, and holds it after the worker's death", async () => {
    const { db } = test.database;
    const heard: string[] = [];
    const unlisten = await test.database.listen("cds_pause", (word) => heard.push(word));
    const user = await addUser(db);
    const { id } = await addTask(db, user);
    await claim();
    await pauseTask(db, user, id);
    expect(await renewLease(db, id, 1, 60_000)).toEqual({ alive: true, cancel: false, paused: true });
    await resumeTask(db, user, id);
    expect((await renewLease(db, id, 1, 60_000)).paused).toBe(false);
    await pauseTask(db, user, id);
    await expect.poll(() => heard).toEqual([`+${id}`, `-${id}`, `+${id}`]);
    await unlisten();

    await sql`UPDATE tasks SET lease_until = now() - interval '1 second' WHERE id = ${id}`.execute(db);
    expect(await reapExpired(db)).toMatchObject({ requeued: 1 });
    expect(await getTask(db, id)).toMatchObject({ state: "pending", paused_at: expect.any(Date) });
    expect(await claim()).toBeNull();
    await resumeTask(db, user, id);
    expect(await claim()).toMatchObject({ id, attempt: 2 });
    await pauseTask(db, user, id);
    await requeueTask(db, id, 2, { delay_ms: 0, note: "rests too long" });
    expect(await claim()).toBeNull();
    await requestCancel(db, { user_id: user }, id);
  });

  it("rests a step before and after it becomes free", async () => {
    const { db } = test.database;
    const user = await addUser(db);
    const { plan, ids } = await addPlan(db, user, { a: [], b: ["a"] });
    await pauseTask(db, user, ids.b);
    expect((await queueView(db, [ids.b], limits)).get(ids.b)).toEqual({ reason: "waits_for_step" });
    expect((await claim())?.id).toBe(ids.a);
    await finishTask(db, { task_id: ids.a, attempt: 1, state: "completed" });
    expect((await queueView(db, [ids.b], limits)).get(ids.b)).toEqual({ reason: "paused" });
    expect(await claim()).toBeNull();
    await requestCancelPlan(db, { user_id: user }, plan.id);
  });

  it("shows nobody another user's task", async () => {
    const { db } = test.database;
    const { id } = await addTask(db, await addUser(db));
    const stranger = await addUser(db);
    await expect(pauseTask(db, stranger, id)).rejects.toMatchObject({ code: "NotFound" });
    await expect(resumeTask(db, stranger, id)).rejects.toMatchObject({ code: "NotFound" });
    await requestCancel(db, "admin", id);
  });
});

describe("sessionHistory", () => {
  it("tells what was asked, answered in the last attempt and changed, the oldest first", async () => {
    const { db } = test.database;
    const owner_id = await addUser(db);
    const quota = { fileBytes: 1e6, projectBytes: 1e6, projectFiles: 10, userBytes: 1e7, userProjects: 5 };
    const { id: project_id } = await createProject(test.database, { owner_id, name: "p", quota });
    const say = (task_id: string, attempt: number, ...deltas: string[]) =>
      appendEvents(
        db,
        { task_id, attempt },
        deltas.map((delta) => ({ type: "text" as const, delta })),
      );
    const one = await addTask(db, owner_id, { project_id, prompt: "One." });
    await claim();
    await say(one.id, 1, "thrown away");
    await requeueTask(db, one.id, 1, { delay_ms: 0, note: "again" });
    await claim();
    await say(one.id, 2, "I did ");
    await appendEvents(db, { task_id: one.id, attempt: 2 }, [{ type: "state", state: "running", note: "…" }]);
    await say(one.id, 2, "it.");
    const [new_hash = null] = await putBlobs(db, [Buffer.from("x")]);
    const files = ["b.ts", "a.ts"].map((path) => ({ path, base_hash: null, new_hash, executable: false }));
    const change = { id: newId("change"), project_id, author: "a", base_revision: 0, summary: "s", files };
    await finishTask(db, { task_id: one.id, attempt: 2, state: "completed", change });

    const two = await addTask(db, owner_id, { project_id, prompt: "Two.", continues: one.id });
    await claim();
    await say(two.id, 1, "x".repeat(15_000), "y".repeat(15_000));
    await finishTask(db, { task_id: two.id, attempt: 1, state: "failed" });
    const three = await addTask(db, owner_id, { project_id, prompt: "Three.", continues: two.id });
    await requestCancel(db, "admin", three.id);

    const history = await sessionHistory(db, three.id, 10);
    const first = { task_id: one.id, state: "completed", prompt: "One.", answer: "I did it." };
    expect(history[0]).toEqual({ ...first, files: ["a.ts", "b.ts"] });
    expect(history[1]).toMatchObject({ task_id: two.id, state: "failed", files: [] });
    expect(history[1]?.answer).toBe("x".repeat(5000) + "y".repeat(15_000));
    expect(history[2]).toMatchObject({ task_id: three.id, prompt: "Three.", answer: "" });
    expect((await sessionHistory(db, three.id, 2)).map(({ task_id }) => task_id)).toEqual([two.id, three.id]);
    expect(await sessionHistory(db, "tsk_none", 2)).toEqual([]);
  });
});
