import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { auditLedger, finishTask } from "#database";
import { newId } from "#platform";
import type { MethodInput } from "#schemas";
import { type ApiServer, type ApiUser, apiServer } from "#tests/support/api-server.ts";
import { planState } from "./agent-views.ts";

let server: ApiServer;
let ada: ApiUser;
let project_id: string;

beforeAll(async () => {
  server = await apiServer({ CDS_TASK_BUDGET: "1000", CDS_SANDBOX_HOSTS: "example.org,*.example.com" });
  ada = await server.user("ada");
  project_id = await server.project(ada);
});
afterAll(() => server[Symbol.asyncDispose]());

type Dispatch = MethodInput<"agent.dispatch">;
const STEPS: NonNullable<Dispatch["plan"]>["steps"] = [
  { id: "code", agent: "CodeAgent", prompt: "Write it.", priority: 9 },
  { id: "test", agent: "TestAgent", prompt: "Test it.", after: ["code"], runner: "opencode" },
];
const plan = (more: Partial<Dispatch> = {}): Dispatch => ({
  plan: { steps: STEPS },
  project_id,
  model: "demo",
  ...more,
});
const task = (more: Partial<Dispatch> = {}): Dispatch => ({
  ...{ agent: "CodeAgent", prompt: "Say hello.", project_id, model: "demo" },
  ...more,
});
const refused = (params: Dispatch) => expect(ada.client.call("agent.dispatch", params)).rejects;

async function end(state: "completed" | "failed" = "completed"): Promise<string> {
  const { id, attempt } = await server.claim();
  await finishTask(server.test.database.db, { task_id: id, attempt, state });
  return id;
}

describe("a plan", () => {
  it("[AG-2] [AG-3] is dispatched, shown step by step, and done", async () => {
    const made = await ada.client.call("agent.dispatch", plan());
    expect(made).toMatchObject({ state: "pending", position: 1 });
    const { plan_id = "", steps = [] } = made;
    expect(steps.map(({ id, state }) => [id, state])).toEqual([
      ["code", "pending"],
      ["test", "pending"],
    ]);
    const [code, test] = steps.map(({ task_id }) => task_id);
    expect(made.task_id).toBe(code);
    expect((await ada.client.call("billing.balance", {})).held_microcredits).toBe(2000);
    const second = await ada.client.call("agent.status", { task_id: test ?? "" });
    expect(second).toMatchObject({ plan_id, step: "test", waits_for: ["code"], reason: "waits_for_step" });
    expect(second).toMatchObject({ agent: "TestAgent", runner: "opencode", budget_microcredits: 1000 });
    expect(second.position).toBeUndefined();
    expect(await ada.client.call("agent.status", { task_id: code ?? "" })).toMatchObject({
      runner: "native",
    });
    expect(await end()).toBe(code);
    const shown = await ada.client.call("agent.plan", { plan_id });
    expect(shown).toMatchObject({ plan_id, project_id, state: "running", usage: { cost_microcredits: 0 } });
    expect(shown.steps.map(({ id, state, after, position }) => [id, state, after, position])).toEqual([
      ["code", "completed", [], undefined],
      ["test", "pending", ["code"], 1],
    ]);
    expect(await end()).toBe(test);
    expect((await ada.client.call("agent.plan", { plan_id })).state).toBe("completed");
    const stranger = await server.user();
    await expect(stranger.client.call("agent.plan", { plan_id })).rejects.toMatchObject({ code: "NotFound" });
    expect(await auditLedger(server.test.database.db)).toEqual({ users_off: [] });
  });

  it("is cancelled as a whole", async () => {
    const { plan_id = "" } = await ada.client.call("agent.dispatch", plan());
    const stranger = await server.user();
    await expect(stranger.client.call("agent.cancel", { plan_id })).rejects.toMatchObject({
      code: "NotFound",
    });
    const cancelled = await ada.client.call("agent.cancel", { plan_id });
    expect(cancelled).toMatchObject({ plan_id, state: "cancelled" });
    expect(cancelled.steps?.map(({ state }) => state)).toEqual(["cancelled", "cancelled"]);
    for (const params of [{}, { plan_id, task_id: cancelled.task_id }]) {
      await expect(ada.client.call("agent.cancel", params)).rejects.toMatchObject({ code: "InvalidParams" });
    }
  });

  it("with the same key is the same plan, and no other", async () => {
    const idempotency_key = newId("call");
    const [one, two] = await Promise.all([
      ada.client.call("agent.dispatch", plan({ idempotency_key })),
      ada.client.call("agent.dispatch", plan({ idempotency_key })),
    ]);
    expect(two?.plan_id).toBe(one?.plan_id);
    expect(await ada.client.call("agent.dispatch", plan({ idempotency_key }))).toMatchObject({
      plan_id: one?.plan_id,
    });
    await refused(plan({ idempotency_key, model: "other" })).toMatchObject({
      code: "Conflict",
      details: { plan_id: one?.plan_id },
    });
    await refused(task({ idempotency_key })).toMatchObject({ code: "Conflict" });
    await ada.client.call("agent.cancel", { plan_id: one?.plan_id ?? "" });
  });

  it("that cannot be carried out changes nothing", async () => {
    const steps = (...more: typeof STEPS) => plan({ plan: { steps: more } });
    const [code, test] = STEPS as [(typeof STEPS)[0], (typeof STEPS)[0]];
    await refused(steps(test)).toMatchObject({
      code: "InvalidParams",
      details: { issues: [{ path: "params.plan.steps[0].after[0]" }] },
    });
    await refused(steps(code, code)).toMatchObject({ code: "InvalidParams" });
    await refused(steps({ ...code, after: ["test"] }, test)).toMatchObject({
      details: { issues: [{ message: '"code" after "test" after "code"' }] },
    });
    await refused(steps(...Array.from({ length: 21 }, (_, n) => ({ ...code, id: `s${n}` })))).toMatchObject({
      code: "InvalidParams",
    });
    await refused(steps(code, { ...test, agent: "TestAgnet" })).toMatchObject({
      details: { hint: 'Did you mean "TestAgent"?', issues: [{ path: "params.plan.steps[1].agent" }] },
    });
    await refused(steps(code, { ...test, model: "gpt-5-mini" })).toMatchObject({ code: "NoProviderKey" });
    await refused(plan({ agent: "CodeAgent" })).toMatchObject({ code: "InvalidParams" });
    await refused({ project_id, model: "demo", agent: "CodeAgent" }).toMatchObject({ code: "InvalidParams" });
    await refused(plan({ project_id: "prj_none" })).toMatchObject({ code: "NotFound" });
    expect((await ada.client.call("agent.history", { state: "pending" })).tasks).toEqual([]);
  });

  it("stands where its steps stand", () => {
    expect(planState(["pending", "pending"])).toBe("pending");
    expect(planState(["completed", "pending"])).toBe("running");
    expect(planState(["completed", "completed"])).toBe("completed");
    expect(planState(["failed", "cancelled"])).toBe("failed");
    expect(planState(["completed", "cancelled"])).toBe("cancelled");
  });
});

describe("[AG-3] pause and resume", () => {
  it("take a task out of the line and put it back", async () => {
    const { task_id } = await ada.client.call("agent.dispatch", task());
    expect(await ada.client.call("agent.pause", { task_id })).toEqual({
      task_id,
      state: "pending",
      paused: true,
    });
    expect(await ada.client.call("agent.status", { task_id })).toMatchObject({
      paused: true,
      reason: "paused",
    });
    await expect(server.claim()).rejects.toThrow("no task");
    const stranger = await server.user();
    for (const method of ["agent.pause", "agent.resume"] as const) {
      await expect(stranger.client.call(method, { task_id })).rejects.toMatchObject({ code: "NotFound" });
    }
    expect((await ada.client.call("agent.resume", { task_id })).paused).toBe(false);
    await end();
    expect(await ada.client.call("agent.pause", { task_id })).toEqual({
      task_id,
      state: "completed",
      paused: false,
    });
  });
});

describe("what a task is given", () => {
  it("is kept and shown: session, place, hosts, ceiling", async () => {
    const first = await ada.client.call("agent.dispatch", task());
    await refused(task({ continues: first.task_id })).toMatchObject({ code: "Conflict" });
    await end();
    const given = task({
      continues: first.task_id,
      context: { path: "a.ts", selection: { start_line: 1, end_line: 1, text: "x" } },
      network: ["example.org", "api.example.com"],
      budget_microcredits: 10,
      may_plan: true,
      idempotency_key: newId("call"),
    });
    const { task_id } = await ada.client.call("agent.dispatch", given);
    expect((await ada.client.call("agent.dispatch", given)).task_id).toBe(task_id);
    await refused({ ...given, context: { path: "b.ts" } }).toMatchObject({ code: "Conflict" });
    expect(await ada.client.call("agent.status", { task_id })).toMatchObject({
      continues: first.task_id,
      network: ["example.org", "api.example.com"],
      budget_microcredits: 10,
      may_plan: true,
    });
    expect(await server.claim()).toMatchObject({ id: task_id, context: given.context });
    const all = await ada.client.call("agent.dispatch", task({ network: true }));
    const { network } = await ada.client.call("agent.status", { task_id: all.task_id });
    expect(network).toEqual(["example.org", "*.example.com"]);
    await end();
  });

  it("is refused beyond what the server allows", async () => {
    await refused(task({ network: ["elsewhere.example"] })).toMatchObject({ code: "Forbidden" });
    await refused(task({ budget_microcredits: 1001 })).toMatchObject({
      code: "InvalidParams",
      details: { issues: [{ path: "params.budget_microcredits" }] },
    });
    await refused(plan({ budget_microcredits: 2001 })).toMatchObject({ code: "InvalidParams" });
    const cheap = await ada.client.call("agent.dispatch", plan({ budget_microcredits: 3 }));
    const { tasks } = await ada.client.call("agent.history", { state: "pending" });
    expect(tasks.map((each) => each.budget_microcredits).sort()).toEqual([1, 2]);
    await ada.client.call("agent.cancel", { plan_id: cheap.plan_id ?? "" });
  });
});
