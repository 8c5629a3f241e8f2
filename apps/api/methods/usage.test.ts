import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { setUserBudget } from "#database";
import { openCall, settleCall } from "#database/ledger/index.ts";
import { finishTask } from "#database/queue/index.ts";
import { newId } from "#platform";
import type { MethodInput } from "#schemas";
import { type ApiServer, type ApiUser, apiServer } from "#tests/support/api-server.ts";

let server: ApiServer;
let ada: ApiUser;
let project_id: string;
let task_id: string;

beforeAll(async () => {
  server = await apiServer({ CDS_TASK_BUDGET: "1000" });
  ada = await server.user("ada");
  project_id = await server.project(ada);
  task_id = await server.dispatch(ada, project_id);
  const { id, attempt } = await server.claim();
  await use(ada, { model: "m1", cost: 30, task: { task_id: id, attempt } });
  await finishTask(server.test.database.db, { task_id: id, attempt, state: "completed" });
  await use(ada, { model: "m2", cost: 50 });
});
afterAll(() => server[Symbol.asyncDispose]());

interface Used {
  model: string;
  cost: number;
  task?: { task_id: string; attempt: number };
}

async function use(user: ApiUser, { model, cost, task }: Used): Promise<void> {
  const { db } = server.test.database;
  const call_id = newId("call");
  await openCall(db, { call_id, user_id: user.id, model, instance_id: "i", hold: cost, task });
  const tokens = { input_tokens: 10, output_tokens: 3, cached_tokens: 4 };
  await settleCall(db, {
    call_id,
    ...tokens,
    cost,
    counted_by: "provider",
    endpoint: "/v1/chat/completions",
  });
}

const sums = { calls: 1, input_tokens: 10, output_tokens: 3, cached_tokens: 4 };

describe("[US-3] usage.*", () => {
  it("a user sees their own use in sums", async () => {
    const summary = (params: MethodInput<"usage.summary">) => ada.client.call("usage.summary", params);
    expect(await summary({ group_by: "model" })).toEqual({
      total: { calls: 2, input_tokens: 20, output_tokens: 6, cached_tokens: 8, cost_microcredits: 80 },
      groups: [
        { key: "m2", ...sums, cost_microcredits: 50 },
        { key: "m1", ...sums, cost_microcredits: 30 },
      ],
      omitted: 0,
    });
    const keys = async (group_by: "project" | "task") =>
      (await summary({ group_by })).groups.map(({ key }) => key);
    expect(await keys("project")).toEqual([null, project_id]);
    expect(await keys("task")).toEqual([null, task_id]);
    const from = new Date(Date.now() + 60_000).toISOString();
    expect((await summary({ group_by: "day", from, time_zone: "Europe/Berlin" })).total.calls).toBe(0);
  });

  it("call by call, of one model, page by page", async () => {
    const first = await ada.client.call("usage.calls", { limit: 1 });
    expect(first.calls).toEqual([
      {
        call_id: expect.stringMatching(/^llm_/),
        model: "m2",
        endpoint: "/v1/chat/completions",
        input_tokens: 10,
        output_tokens: 3,
        cached_tokens: 4,
        cost_microcredits: 50,
        counted_by: "provider",
        created_at: expect.stringMatching(/Z$/),
      },
    ]);
    const second = await ada.client.call("usage.calls", { limit: 1, cursor: first.next_cursor });
    expect(second.calls).toMatchObject([{ model: "m1", task_id }]);
    expect(second.next_cursor).toBeUndefined();
    expect((await ada.client.call("usage.calls", { model: "m1" })).calls).toEqual(second.calls);
  });

  it("and how the balance went", async () => {
    const { buckets } = await ada.client.call("usage.balance", { bucket: "hour", time_zone: "Asia/Kolkata" });
    expect(buckets.length).toBeGreaterThanOrEqual(24);
    expect(buckets.at(-1)?.balance).toBe(10_000_000 - 80);
    const total = (key: "granted" | "charged") => buckets.reduce((sum, bucket) => sum + bucket[key], 0);
    expect([total("granted"), total("charged")]).toEqual([10_000_000, 80]);
    const { entries } = await ada.client.call("billing.entries", {});
    expect(entries.map(({ kind, balance_after }) => [kind, balance_after])).toEqual([
      ["settle", 9_999_920],
      ["hold", 9_999_970],
      ["release", 9_999_970],
      ["settle", 9_999_970],
      ["hold", 10_000_000],
      ["grant", 10_000_000],
    ]);
  });

  it("nobody sees anybody else's", async () => {
    const eve = await server.user();
    expect((await eve.client.call("usage.summary", { group_by: "task" })).total.calls).toBe(0);
    expect((await eve.client.call("usage.calls", {})).calls).toEqual([]);
    const { next_cursor } = await ada.client.call("usage.calls", { limit: 1 });
    expect((await eve.client.call("usage.calls", { cursor: next_cursor })).calls).toEqual([]);
  });

  it("refuses zones and moments that are none", async () => {
    const refused = async (params: object, path: string) =>
      expect(ada.client.call("usage.balance", { bucket: "day", ...params } as never)).rejects.toMatchObject({
        code: "InvalidParams",
        details: { issues: expect.arrayContaining([expect.objectContaining({ path: `params.${path}` })]) },
      });
    for (const time_zone of [
      "Mars/Olympus",
      "+02:00",
      "",
      "Europe/Berlin'; --",
      "x".repeat(65),
      "../etc/x",
    ]) {
      await refused({ time_zone }, "time_zone");
    }
    for (const from of ["yesterday", "2026-13-01T00:00:00Z", "2026-01-01", 5])
      await refused({ from }, "from");
    await refused({ bucket: "week" }, "bucket");
    await expect(
      ada.client.call("usage.balance", { bucket: "hour", from: "2020-01-01T00:00:00+01:00" }),
    ).rejects.toMatchObject({ code: "InvalidParams", details: { issues: [{ path: "from" }] } });
    await expect(ada.client.call("usage.calls", { cursor: "x" })).rejects.toMatchObject({
      code: "InvalidParams",
    });
  });
});

describe("[US-3] budget.*", () => {
  it("a project's owner bounds what its tasks may spend", async () => {
    const user = await server.user();
    const own = await server.project(user);
    const untouched = await user.client.call("budget.get", { project_id: own });
    expect(untouched).toEqual({
      limit: null,
      period: "month",
      spent: 0,
      held: 0,
      resets_at: expect.stringMatching(/-01T00:00:00.000Z$/),
    });
    const set = await user.client.call("budget.set", { project_id: own, limit: 1500, period: "total" });
    expect(set).toEqual({ limit: 1500, period: "total", spent: 0, held: 0, resets_at: null });
    await server.dispatch(user, own);
    await server.dispatch(user, own);
    expect(await user.client.call("budget.get", { project_id: own })).toMatchObject({ held: 1500 });
    const refused = await server.post(
      {
        jsonrpc: "2.0",
        method: "agent.dispatch",
        params: { agent: "CodeAgent", project_id: own, prompt: "x", model: "demo" },
        id: 1,
      },
      user.token,
    );
    expect(refused.status).toBe(402);
    expect(refused.body.error).toMatchObject({
      code: -32405,
      data: { code: "BudgetExceeded", scope: "project", limit: 1500, spent: 0, held: 1500 },
    });
    // Another project has its own.
    await server.dispatch(user);
    await user.client.call("budget.set", { project_id: own, limit: null });
    await server.dispatch(user, own);
  });

  it("nobody sees or sets a budget that is not theirs, nor raises their own", async () => {
    const eve = await server.user();
    const viewer = await server.user(undefined, "viewer");
    await expect(eve.client.call("budget.get", { project_id })).rejects.toMatchObject({ code: "NotFound" });
    await expect(eve.client.call("budget.set", { project_id, limit: 1 })).rejects.toMatchObject({
      code: "NotFound",
    });
    await expect(viewer.client.call("budget.set", { project_id, limit: 1 })).rejects.toMatchObject({
      code: "Forbidden",
    });
    await expect(eve.client.call("budget.set", { limit: 1 } as never)).rejects.toMatchObject({
      code: "InvalidParams",
    });
    for (const limit of [-1, 0.5, 2 ** 53]) {
      await expect(ada.client.call("budget.set", { project_id, limit })).rejects.toMatchObject({
        code: "InvalidParams",
      });
    }
    await setUserBudget(server.test.database.db, eve.id, { limit: 5000, period: "month" });
    expect(await eve.client.call("budget.get", {})).toMatchObject({ limit: 5000, period: "month" });
  });
});
