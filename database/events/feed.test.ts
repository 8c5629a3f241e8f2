import { setTimeout as sleep } from "node:timers/promises";
import { sql } from "kysely";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import {
  appendEvents,
  type Claim,
  claimTask,
  type Database,
  EventFeed,
  type FeedOptions,
  finishTask,
  readEvents,
  type TaskRow,
} from "#database";
import { createLogger } from "#platform/log.ts";
import type { TaskEvent } from "#schemas";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { addTask, addUser } from "#tests/support/queue.ts";

vi.setConfig({ expect: { poll: { timeout: 30_000 } } });

let test: TestDatabase;
const feeds: EventFeed[] = [];
beforeAll(async () => {
  test = await testDatabase();
});
afterEach(async () => {
  for (const feed of feeds.splice(0)) await feed.close();
});
afterAll(() => test[Symbol.asyncDispose]());

const log = createLogger({ level: "silent", pretty: false });
const claim: Claim = { worker_id: "w", capacity: 1000, per_user: 1, seconds_between: 0, lease_ms: 60_000 };

async function openFeed(
  options: FeedOptions = {},
  database: Pick<Database, "db" | "listen"> = test.database,
) {
  const feed = await EventFeed.open(database, log, options);
  feeds.push(feed);
  return feed;
}

async function running(): Promise<TaskRow> {
  const { db } = test.database;
  const task = await addTask(db, await addUser(db), { priority: 1000 });
  return (await claimTask(db, claim)) ?? task;
}

const append = (task: TaskRow, ...deltas: string[]) =>
  appendEvents(
    test.database.db,
    { task_id: task.id, attempt: task.attempt },
    deltas.map((delta) => ({ type: "text" as const, delta })),
  );

const finish = (task: TaskRow) =>
  finishTask(test.database.db, { task_id: task.id, attempt: task.attempt, state: "completed" });

/** Collects what a subscription gets; `ended` resolves with the error given to onEnd, or undefined. */
function watch(feed: EventFeed, task_id: string, after_seq = 0) {
  const events: TaskEvent[] = [];
  const ends: unknown[] = [];
  const { promise: ended, resolve } = Promise.withResolvers<unknown>();
  const stop = feed.subscribe(
    task_id,
    after_seq,
    (page) => {
      events.push(...page);
    },
    (error) => {
      ends.push(error);
      resolve(error);
    },
  );
  return { events, ended, ends, stop };
}

const seqs = (events: readonly TaskEvent[]) => events.map(({ seq }) => seq);
const from = (first: number, last: number) => Array.from({ length: last - first + 1 }, (_, n) => first + n);

describe("appendEvents", () => {
  it("numbers without a gap, keeps what it is given, and announces once per batch", async () => {
    const { db } = test.database;
    const task = await running();
    const heard: string[] = [];
    const unlisten = await test.database.listen("cds_events", (payload) => heard.push(payload));
    expect(await append(task, "a", "b", "c")).toEqual({ last_seq: 5 });
    const odd = { type: "tool" as const, call_id: "1", name: "n", status: "completed" as const };
    const input = { "k\0": ["x\ud800", 1, null, { deep: "\0" }], emoji: "\u{1f600}" };
    await appendEvents(db, { task_id: task.id, attempt: 1 }, [{ ...odd, input }]);
    await expect.poll(() => heard).toEqual([`${task.id}:5`, `${task.id}:6`]);
    const events = await readEvents(db, task.id, 2, 10);
    expect(seqs(events)).toEqual([3, 4, 5, 6]);
    expect(events[3]).toMatchObject({
      type: "tool",
      input: { "k\ufffd": ["x\ufffd", 1, null, { deep: "\ufffd" }], emoji: "\u{1f600}" },
    });
    expect(Date.parse(events[0]?.at ?? "")).toBeGreaterThan(Date.now() - 60_000);
    await unlisten();
    await finish(task);
  });

  it("rows of the log are never changed", async () => {
    const { db } = test.database;
    const task = await running();
    await expect(
      db.updateTable("task_events").set({ data: "{}" }).where("task_id", "=", task.id).execute(),
    ).rejects.toThrow("append-only");
    await finish(task);
  });
});

describe("EventFeed", () => {
  it("[MU-8] delivers live and ends after done", async () => {
    const feed = await openFeed({ pollMs: 60_000 });
    const task = await running();
    const seen = watch(feed, task.id);
    await expect.poll(() => seqs(seen.events)).toEqual([1, 2]);
    await append(task, "x");
    await expect.poll(() => seqs(seen.events)).toEqual([1, 2, 3]);
    await finish(task);
    expect(await seen.ended).toBeUndefined();
    expect(seqs(seen.events)).toEqual([1, 2, 3, 4, 5]);
    expect(seen.events.at(-1)?.type).toBe("done");
    expect(feed.size).toBe(0);
  });

  it("resumes anywhere while many write: nothing missing, nothing twice", async () => {
    const feed = await openFeed({ pollMs: 60_000, pageEvents: 7 });
    const tasks = await Promise.all(Array.from({ length: 6 }, () => running()));
    const writers = tasks.map(async (task) => {
      for (let n = 0; n < 60; n += 1) {
        await append(task, ...Array.from({ length: 1 + (n % 4) }, (_, index) => `${n}.${index}`));
        if (n % 10 === 0) await sleep(5);
      }
      await finish(task);
    });
    /** Breaks off after every few events and comes back after the last seq it had. */
    const follow = async (task: TaskRow, patience: number): Promise<TaskEvent[]> => {
      const all: TaskEvent[] = [];
      for (;;) {
        const { promise, resolve } = Promise.withResolvers<boolean>();
        let got = 0;
        const stop = feed.subscribe(
          task.id,
          all.at(-1)?.seq ?? 0,
          async (page) => {
            all.push(...page);
            got += page.length;
            if (got >= patience) {
              stop();
              resolve(false);
            }
            await sleep(1);
          },
          () => resolve(true),
        );
        if (await promise) return all;
      }
    };
    const followers = tasks.flatMap((task) => [follow(task, 5), follow(task, 23), follow(task, 1e9)]);
    const seen = await Promise.all(followers);
    await Promise.all(writers);
    const expected = 2 + 60 + 90 + 2;
    for (const events of seen) {
      expect(seqs(events)).toEqual(from(1, expected));
      expect(events.at(-1)?.type).toBe("done");
    }
  });

  it("[MU-8] holds one page at most for a slow subscriber, and others do not wait for it", async () => {
    const feed = await openFeed({ pollMs: 50, pageEvents: 10 });
    const task = await running();
    const gate = Promise.withResolvers<void>();
    const pages: number[] = [];
    const ended = new Promise<void>((resolve) => {
      feed.subscribe(
        task.id,
        0,
        async (page) => {
          pages.push(page.length);
          await gate.promise;
        },
        () => resolve(),
      );
    });
    const quick = watch(feed, task.id);
    for (let n = 0; n < 20; n += 1) await append(task, "a", "b", "c");
    await finish(task);
    expect(await quick.ended).toBeUndefined();
    expect(quick.events).toHaveLength(64);
    expect(pages).toHaveLength(1);
    gate.resolve();
    await ended;
    expect(Math.max(...pages)).toBeLessThanOrEqual(10);
    expect(pages.reduce((sum, length) => sum + length, 0)).toBe(64);
  });

  it("bounds a page by its bytes as well, yet always gives one event", async () => {
    const feed = await openFeed({ pollMs: 60_000, pageBytes: 1000 });
    const task = await running();
    for (let n = 0; n < 5; n += 1) await append(task, "x".repeat(5000));
    await finish(task);
    const pages: number[] = [];
    const all: TaskEvent[] = [];
    await new Promise<unknown>((resolve) => {
      const take = (page: readonly TaskEvent[]) => {
        pages.push(page.length);
        all.push(...page);
      };
      feed.subscribe(task.id, 0, take, resolve);
    });
    expect(seqs(all)).toEqual(from(1, 9));
    expect(pages).toEqual([3, 1, 1, 1, 1, 2]);
  });

  it("finds what no notification told of", async () => {
    const deaf = { db: test.database.db, listen: async () => async () => undefined };
    const feed = await openFeed({ pollMs: 30 }, deaf);
    const task = await running();
    const seen = watch(feed, task.id);
    await append(task, "x");
    await finish(task);
    expect(await seen.ended).toBeUndefined();
    expect(seqs(seen.events)).toEqual([1, 2, 3, 4, 5]);
  });

  it("looks again at once when the listening connection came back", async () => {
    let reconnected: () => void = () => undefined;
    const deaf: Pick<Database, "db" | "listen"> = {
      db: test.database.db,
      listen: async (_channel, _onNotify, onReconnect) => {
        reconnected = onReconnect ?? reconnected;
        return async () => undefined;
      },
    };
    const feed = await openFeed({ pollMs: 60_000 }, deaf);
    const task = await running();
    const seen = watch(feed, task.id, 2);
    await sleep(100);
    await append(task, "x");
    await sleep(100);
    expect(seen.events).toEqual([]);
    reconnected();
    await expect.poll(() => seqs(seen.events)).toEqual([3]);
    await finish(task);
  });

  it("ends at once for who has everything, beyond the end, or asks for a task that is none", async () => {
    const feed = await openFeed({ pollMs: 60_000 });
    const task = await running();
    const beyond = watch(feed, task.id, Number.MAX_SAFE_INTEGER);
    await finish(task);
    const all = watch(feed, task.id, 4);
    const none = watch(feed, "tsk_none");
    expect(await all.ended).toBeUndefined();
    expect(await none.ended).toMatchObject({ code: "NotFound" });
    expect([...all.events, ...none.events, ...beyond.events]).toEqual([]);
    beyond.stop();
    const late = watch(feed, task.id, Number.MAX_SAFE_INTEGER);
    expect(await late.ended).toBeUndefined();
    expect(feed.size).toBe(0);
  });

  it("a subscriber that fails is ended with its error, alone", async () => {
    const feed = await openFeed({ pollMs: 60_000 });
    const task = await running();
    const failed = new Promise((resolve) => {
      feed.subscribe(task.id, 0, () => Promise.reject(new Error("socket gone")), resolve);
    });
    const badEnd = new Promise<void>((resolve) => {
      feed.subscribe(
        task.id,
        0,
        () => undefined,
        () => {
          resolve();
          throw new Error("bad end");
        },
      );
    });
    const good = watch(feed, task.id);
    expect(await failed).toMatchObject({ message: "socket gone" });
    await finish(task);
    await badEnd;
    expect(await good.ended).toBeUndefined();
    expect(seqs(good.events)).toEqual([1, 2, 3, 4]);
  });

  it("says nothing more after an unsubscribe, not even the end", async () => {
    const feed = await openFeed({ pollMs: 20 });
    const task = await running();
    const early = watch(feed, task.id);
    early.stop();
    early.stop();
    const seen = watch(feed, task.id);
    await expect.poll(() => seen.events.length).toBe(2);
    seen.stop();
    await append(task, "x");
    await finish(task);
    await sleep(60);
    expect([early.events.length, seen.events.length]).toEqual([0, 2]);
    expect([...early.ends, ...seen.ends]).toEqual([]);
  });

  it("carries on after the database failed for a while", async () => {
    const feed = await openFeed({ pollMs: 30 });
    const task = await running();
    const seen = watch(feed, task.id);
    await expect.poll(() => seen.events.length).toBe(2);
    for (const table of ["task_events", "tasks"]) {
      await sql`ALTER TABLE ${sql.table(table)} RENAME TO away`.execute(test.database.db);
      await sleep(80);
      await sql`ALTER TABLE away RENAME TO ${sql.table(table)}`.execute(test.database.db);
    }
    await append(task, "x");
    await finish(task);
    expect(await seen.ended).toBeUndefined();
    expect(seqs(seen.events)).toEqual([1, 2, 3, 4, 5]);
  });

  it("closing ends everybody, once, and later ones at once", async () => {
    const feed = await openFeed({ pollMs: 60_000 });
    const task = await running();
    const seen = watch(feed, task.id);
    await feed.close();
    await feed[Symbol.asyncDispose]();
    expect(await seen.ended).toMatchObject({ code: "Unavailable" });
    expect(await watch(feed, task.id).ended).toMatchObject({ code: "Unavailable" });
    expect(seen.ends).toHaveLength(1);
    await finish(task);
  });
});
