import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  balanceHistory,
  balanceOf,
  type Db,
  listEntries,
  listUsageCalls,
  openCall,
  settleCall,
  summarizeUsage,
  type UsageSummary,
} from "#database";
import { newId } from "#platform/ids.ts";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { addTask, addUser } from "#tests/support/queue.ts";

let test: TestDatabase;
let db: Db;
beforeAll(async () => {
  test = await testDatabase();
  db = test.database.db;
});
afterAll(() => test[Symbol.asyncDispose]());

interface Used {
  at: string;
  cost: number;
  model?: string;
  endpoint?: string;
  task_id?: string;
}

/** A settled call, as if it had been made at `at`. */
async function use(user_id: string, { at, cost, model = "m", endpoint = "/v1/x", task_id }: Used) {
  const call_id = newId("call");
  await openCall(db, { call_id, user_id, model, instance_id: "i", hold: cost });
  const tokens = { input_tokens: 10, output_tokens: 3, cached_tokens: 4 };
  await settleCall(db, { call_id, ...tokens, cost, counted_by: "model", endpoint });
  await sql`UPDATE tokens_used SET created_at = ${at}, task_id = ${task_id ?? null}
    WHERE call_id = ${call_id}`.execute(db);
  await entryAt(at, sql`call_id = ${call_id} AND kind = 'settle'`);
  return call_id;
}

/** Ledger rows are never updated; a test that makes history has to go round that. */
async function entryAt(at: string, which: ReturnType<typeof sql>): Promise<void> {
  await test.database.transaction(async (trx) => {
    await sql`ALTER TABLE ledger_entries DISABLE TRIGGER ledger_entries_append_only`.execute(trx);
    await sql`UPDATE ledger_entries SET created_at = ${at} WHERE ${which}`.execute(trx);
    await sql`ALTER TABLE ledger_entries ENABLE TRIGGER ledger_entries_append_only`.execute(trx);
  });
}

const keys = ({ groups }: UsageSummary) =>
  groups.map(({ key, calls, cost_microcredits }) => [key, calls, cost_microcredits]);

describe("[US-3] listEntries", () => {
  it("tells the balance after each entry, on every page and for one task's entries", async () => {
    const user = await addUser(db, 1000);
    const { id: task_id } = await addTask(db, user, { budget: 100 });
    for (const cost of [7, 0, 30, 1]) await use(user, { at: "2026-01-01T00:00:00Z", cost });
    await addTask(db, user, { budget: 50 });
    const { entries: all } = await listEntries(db, { user_id: user, limit: 100 });
    let sum = 0;
    const expected = [...all].reverse().map((entry) => {
      sum += entry.balance_delta;
      return [entry.id, sum];
    });
    expect(all.map((entry) => [entry.id, entry.balance_after])).toEqual(expected.reverse());
    expect(all[0]?.balance_after).toBe((await balanceOf(db, user)).balance_microcredits);
    const paged = [];
    let cursor: string | undefined;
    do {
      const page = await listEntries(db, { user_id: user, limit: 2, cursor });
      paged.push(...page.entries);
      cursor = page.next_cursor;
    } while (cursor !== undefined);
    expect(paged).toEqual(all);
    const ofTask = await listEntries(db, { user_id: user, task_id, limit: 5 });
    expect(ofTask.entries).toEqual(all.filter((entry) => entry.task_id === task_id));
  });
});

describe("[US-3] summarizeUsage", () => {
  it("by model, endpoint, project, task and day, within a range", async () => {
    const user = await addUser(db);
    const task = await addTask(db, user, { project_id: "prj_a" });
    await use(user, { at: "2026-03-01T10:00:00Z", cost: 5, model: "a", task_id: task.id });
    await use(user, { at: "2026-03-02T10:00:00Z", cost: 9, model: "b" });
    await use(user, { at: "2026-03-02T11:00:00Z", cost: 2, model: "a", endpoint: "/v1/y" });
    await use(await addUser(db), { at: "2026-03-02T11:00:00Z", cost: 99 });
    const by = (group_by: "model" | "day" | "endpoint" | "project" | "task", range = {}) =>
      summarizeUsage(db, { user_id: user, ...range }, { group_by, time_zone: "UTC" });
    const models = await by("model");
    expect(models).toEqual({
      total: { calls: 3, input_tokens: 30, output_tokens: 9, cached_tokens: 12, cost_microcredits: 16 },
      groups: [
        { key: "b", calls: 1, input_tokens: 10, output_tokens: 3, cached_tokens: 4, cost_microcredits: 9 },
        { key: "a", calls: 2, input_tokens: 20, output_tokens: 6, cached_tokens: 8, cost_microcredits: 7 },
      ],
      omitted: 0,
    });
    expect(keys(await by("endpoint"))).toEqual([
      ["/v1/x", 2, 14],
      ["/v1/y", 1, 2],
    ]);
    expect(keys(await by("project"))).toEqual([
      [null, 2, 11],
      ["prj_a", 1, 5],
    ]);
    expect(keys(await by("task"))).toEqual([
      [null, 2, 11],
      [task.id, 1, 5],
    ]);
    expect(keys(await by("day"))).toEqual([
      ["2026-03-01", 1, 5],
      ["2026-03-02", 2, 11],
    ]);
    const from = new Date("2026-03-02T10:00:00Z");
    const to = new Date("2026-03-02T11:00:00Z");
    expect(keys(await by("day", { from }))).toEqual([["2026-03-02", 2, 11]]);
    expect((await by("day", { from, to })).total.calls).toBe(1);
    expect(await by("task", { from: to, to: from })).toMatchObject({
      total: { calls: 0 },
      groups: [],
      omitted: 0,
    });
  });

  it("counts days on the wall of the zone that is asked for", async () => {
    const user = await addUser(db);
    // Berlin's last hour before summer time, and the first after it.
    await use(user, { at: "2026-03-28T22:59:59Z", cost: 1 });
    await use(user, { at: "2026-03-28T23:00:00Z", cost: 2 });
    await use(user, { at: "2026-03-29T21:59:59Z", cost: 4 });
    await use(user, { at: "2026-03-29T22:00:00Z", cost: 8 });
    const zone = async (time_zone: string) =>
      keys(await summarizeUsage(db, { user_id: user }, { group_by: "day", time_zone }));
    expect(await zone("Europe/Berlin")).toEqual([
      ["2026-03-28", 1, 1],
      ["2026-03-29", 2, 6],
      ["2026-03-30", 1, 8],
    ]);
    expect(await zone("Asia/Kolkata")).toEqual([
      ["2026-03-29", 2, 3],
      ["2026-03-30", 2, 12],
    ]);
    await expect(zone("Mars/Olympus")).rejects.toMatchObject({
      code: "InvalidParams",
      details: { issues: [{ path: "time_zone" }] },
    });
  });

  it("shows a thousand groups, and counts the others in the total", async () => {
    const user = await addUser(db);
    await sql`INSERT INTO llm_calls (id, user_id, model, instance_id, state, hold_microcredits)
      SELECT ${user} || n, ${user}, 'm', 'i', 'settled', 0 FROM generate_series(1, 1203) n`.execute(db);
    await sql`INSERT INTO tokens_used (call_id, user_id, model_id, endpoint, input_tokens, output_tokens,
        cost_microcredits, counted_by, created_at)
      SELECT ${user} || n, ${user}, 'model ' || n, '/v1/x', 1, 1, n, 'provider',
        timestamptz '2020-01-01 00:00Z' + n * interval '1 day'
      FROM generate_series(1, 1203) n`.execute(db);
    const byModel = await summarizeUsage(db, { user_id: user }, { group_by: "model", time_zone: "UTC" });
    expect(byModel).toMatchObject({
      total: { calls: 1203, cost_microcredits: (1203 * 1204) / 2 },
      omitted: 203,
    });
    expect(byModel.groups).toHaveLength(1000);
    expect(byModel.groups[0]?.key).toBe("model 1203");
    const byDay = await summarizeUsage(db, { user_id: user }, { group_by: "day", time_zone: "UTC" });
    expect(byDay.groups.at(-1)?.key).toBe("2023-04-18");
    expect(byDay).toMatchObject({ total: { calls: 1203 }, omitted: 203 });
  });
});

describe("[US-3] listUsageCalls", () => {
  it("newest first, page by page, also those of one moment, one model or a range", async () => {
    const user = await addUser(db);
    const ids = [];
    for (let n = 0; n < 7; n += 1) {
      // Two by two at the same moment.
      const at = `2026-04-0${1 + Math.floor(n / 2)}T00:00:00Z`;
      ids.push(await use(user, { at, cost: n, model: n % 3 === 0 ? "third" : "other" }));
    }
    const pages = async (filter: { model?: string; from?: Date; to?: Date }) => {
      const seen: string[] = [];
      let cursor: string | undefined;
      do {
        const page = await listUsageCalls(db, { user_id: user, limit: 2, cursor, ...filter });
        seen.push(...page.calls.map(({ call_id }) => call_id));
        cursor = page.next_cursor;
      } while (cursor !== undefined);
      return seen;
    };
    const newest = ids.reverse();
    expect(await pages({})).toEqual(newest);
    expect(await pages({ model: "third" })).toEqual([6, 3, 0].map((n) => newest[6 - n]));
    const range = { from: new Date("2026-04-02T00:00:00Z"), to: new Date("2026-04-04T00:00:00Z") };
    expect(await pages(range)).toEqual(newest.slice(1, 5));
    const [first] = (await listUsageCalls(db, { user_id: user, limit: 1 })).calls;
    expect(first).toEqual({
      call_id: newest[0],
      model: "third",
      endpoint: "/v1/x",
      input_tokens: 10,
      output_tokens: 3,
      cached_tokens: 4,
      cost_microcredits: 6,
      counted_by: "model",
      task_id: null,
      created_at: new Date("2026-04-04T00:00:00Z"),
    });
    await expect(listUsageCalls(db, { user_id: user, limit: 1, cursor: "x" })).rejects.toMatchObject({
      code: "InvalidParams",
    });
  });
});

describe("[US-3] balanceHistory", () => {
  it("has every day, the balance at its end, what was given and what was charged", async () => {
    const user = await addUser(db, 1000);
    await entryAt("2026-05-01T12:00:00Z", sql`user_id = ${user}`);
    await use(user, { at: "2026-05-02T23:59:59Z", cost: 10 });
    await use(user, { at: "2026-05-03T00:00:00Z", cost: 20 });
    await use(user, { at: "2026-05-05T00:00:00Z", cost: 40 });
    const query = { user_id: user, bucket: "day", time_zone: "UTC" } as const;
    const from = new Date("2026-05-01T13:00:00Z");
    const rows = async (to: string) =>
      (await balanceHistory(db, { ...query, from, to: new Date(to) })).map(
        ({ start, balance, granted, charged }) => [
          start.toISOString().slice(5, 10),
          balance,
          granted,
          charged,
        ],
      );
    expect(await rows("2026-05-05T00:00:00Z")).toEqual([
      ["05-01", 1000, 1000, 0],
      ["05-02", 990, 0, 10],
      ["05-03", 970, 0, 20],
      ["05-04", 970, 0, 0],
    ]);
    expect((await rows("2026-05-05T00:00:01Z")).at(-1)).toEqual(["05-05", 930, 0, 40]);
    const before = await balanceHistory(db, {
      ...query,
      from: new Date("2026-04-01T00:00:00Z"),
      to: new Date("2026-04-02T00:00:00Z"),
    });
    expect(before).toEqual([{ start: new Date("2026-04-01T00:00:00Z"), balance: 0, granted: 0, charged: 0 }]);
    const now = await balanceHistory(db, query);
    expect(now.at(-1)?.balance).toBe((await balanceOf(db, user)).balance_microcredits);
  });

  it("follows the clock of the zone into summer time and out of it", async () => {
    const user = await addUser(db);
    const starts = async (bucket: "hour" | "day" | "month", time_zone: string, from: string, to: string) =>
      (
        await balanceHistory(db, { user_id: user, bucket, time_zone, from: new Date(from), to: new Date(to) })
      ).map(({ start }) => start.toISOString().slice(5, 16));
    const berlin = (bucket: "hour" | "day" | "month", from: string, to: string) =>
      starts(bucket, "Europe/Berlin", from, to);
    // A day of 23 hours and one of 25.
    expect(await berlin("day", "2026-03-28T00:00Z", "2026-03-31T00:00Z")).toEqual([
      "03-27T23:00",
      "03-28T23:00",
      "03-29T22:00",
      "03-30T22:00",
    ]);
    expect(await berlin("hour", "2026-03-28T23:00Z", "2026-03-29T22:00Z")).toHaveLength(23);
    expect(await berlin("hour", "2026-10-24T22:00Z", "2026-10-25T23:00Z")).toHaveLength(25);
    expect(await berlin("month", "2026-02-28T23:00Z", "2026-05-01T00:00Z")).toEqual([
      "02-28T23:00",
      "03-31T22:00",
      "04-30T22:00",
    ]);
    // Half an hour beside everybody else's.
    expect(await starts("hour", "Asia/Kolkata", "2026-03-28T00:00Z", "2026-03-28T02:00Z")).toEqual([
      "03-27T23:30",
      "03-28T00:30",
      "03-28T01:30",
    ]);
    // Midnight comes twice, and the day begins with the first; midnight never comes, and it begins at one.
    expect(await starts("day", "America/Havana", "2026-10-31T12:00Z", "2026-11-02T12:00Z")).toEqual([
      "10-31T04:00",
      "11-01T04:00",
      "11-02T05:00",
    ]);
    expect(await starts("day", "America/Havana", "2026-03-07T12:00Z", "2026-03-09T12:00Z")).toEqual([
      "03-07T05:00",
      "03-08T05:00",
      "03-09T04:00",
    ]);
  });

  it("agrees with the days of the summary, whatever the clock does", async () => {
    const user = await addUser(db);
    for (const hour of Array.from({ length: 60 }, (_, index) => index)) {
      const at = new Date(Date.UTC(2026, 9, 31) + hour * 3_600_000).toISOString();
      await use(user, { at, cost: hour + 1 });
    }
    const time_zone = "America/Havana";
    const { groups } = await summarizeUsage(db, { user_id: user }, { group_by: "day", time_zone });
    const points = await balanceHistory(db, {
      user_id: user,
      bucket: "day",
      time_zone,
      from: new Date("2026-10-31T00:00Z"),
      to: new Date("2026-11-02T12:00Z"),
    });
    expect(points.map(({ charged }) => charged)).toEqual(
      groups.map(({ cost_microcredits }) => cost_microcredits),
    );
  });

  it("refuses what cannot be shown", async () => {
    const user_id = await addUser(db);
    const query = { user_id, bucket: "hour", time_zone: "UTC" } as const;
    const now = new Date();
    const refused = async (more: object, path: string) =>
      expect(balanceHistory(db, { ...query, ...more })).rejects.toMatchObject({
        code: "InvalidParams",
        details: { issues: [{ path }] },
      });
    await refused({ from: now, to: now }, "from");
    await refused({ from: new Date("2020-01-01") }, "from");
    await refused({ from: new Date("0001-01-01"), bucket: "month" }, "from");
    await refused({ time_zone: "Mars/Olympus" }, "time_zone");
    const long = { from: new Date(now.getTime() - 999 * 3_600_000), to: now };
    expect((await balanceHistory(db, { ...query, ...long })).length).toBeGreaterThanOrEqual(999);
    await expect(balanceHistory(db, { ...query, user_id: "usr_none" })).rejects.toMatchObject({
      code: "NotFound",
    });
  });
});

describe("what is asked of a long history", () => {
  it("is read through its index", async () => {
    // One of a hundred users' calls, among those of the others as they come.
    const many = await addUser(db, 0);
    const others = await Promise.all(Array.from({ length: 99 }, () => addUser(db, 0)));
    await sql`INSERT INTO llm_calls (id, user_id, model, instance_id, state, hold_microcredits)
      SELECT 'plan' || n, (${[many, ...others]}::text[])[n % 100 + 1], 'm' || (n / 100) % 20, 'i', 'settled', 0
      FROM generate_series(1, 40000) n`.execute(db);
    await sql`INSERT INTO tokens_used (call_id, user_id, model_id, endpoint, input_tokens, output_tokens,
        cost_microcredits, counted_by, created_at)
      SELECT id, user_id, model, '/v1/x', 1, 1, 1, 'provider', now() - random() * interval '300 days'
      FROM llm_calls WHERE id LIKE 'plan%'`.execute(db);
    await sql`INSERT INTO ledger_entries (user_id, kind, balance_delta, held_delta, idempotency_key, created_at)
      SELECT user_id, 'settle', -1, 0, call_id, created_at FROM tokens_used
      WHERE call_id LIKE 'plan%'`.execute(db);
    await sql`ANALYZE`.execute(db);
    const recent = new Date(Date.now() - 86_400_000);
    const plans = await explained(async () => {
      await listEntries(db, { user_id: many, limit: 20 });
      await listUsageCalls(db, { user_id: many, limit: 20 });
      await listUsageCalls(db, { user_id: many, model: "m1", limit: 20 });
      await summarizeUsage(db, { user_id: many, from: recent }, { group_by: "model", time_zone: "UTC" });
      await balanceHistory(db, { user_id: many, bucket: "hour", time_zone: "UTC", from: recent });
    });
    expect(plans).toHaveLength(5);
    for (const plan of plans) expect(plan).not.toMatch(/Seq Scan on (ledger_entries|tokens_used)/);
    const [entries, calls, ofModel, summary, history] = plans;
    expect(entries).toMatch(/Index (Only )?Scan using ledger_balance /);
    expect(calls).toMatch(/Index Scan using tokens_used_user /);
    expect(ofModel).toMatch(/tokens_used_user_model /);
    expect(summary).toMatch(/tokens_used_user/);
    expect(history).toMatch(/Index (Only )?Scan using ledger_balance_time /);
  });

  /** The plans of what a function asks: every statement is explained beside being run. */
  async function explained(asking: () => Promise<void>): Promise<string[]> {
    const executor = db.getExecutor();
    const original = executor.executeQuery.bind(executor);
    const plans: string[] = [];
    const spied: typeof original = async (query) => {
      const explain = { ...query, sql: `EXPLAIN ${query.sql}` };
      const { rows } = await original(explain as typeof query);
      plans.push(rows.map((row) => (row as Record<string, string>)["QUERY PLAN"]).join("\n"));
      return original(query);
    };
    executor.executeQuery = spied as typeof executor.executeQuery;
    try {
      await asking();
    } finally {
      executor.executeQuery = original as typeof executor.executeQuery;
    }
    return plans;
  }
});
