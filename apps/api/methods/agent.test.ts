import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { deleteProject } from "#database/projects/index.ts";
import { finishTask } from "#database/queue/index.ts";
import { newId } from "#platform";
import type { MethodInput } from "#schemas";
import { type ApiServer, type ApiUser, apiServer } from "#tests/support/api-server.ts";

let server: ApiServer;
let ada: ApiUser;
let project_id: string;

beforeAll(async () => {
  server = await apiServer({ CDS_MAX_PENDING_PER_USER: "3", CDS_TASK_BUDGET: "1000" });
  ada = await server.user("ada");
  project_id = await server.project(ada);
});
afterAll(() => server[Symbol.asyncDispose]());

const wanted = (more: Partial<MethodInput<"agent.dispatch">> = {}): MethodInput<"agent.dispatch"> => ({
  agent: "CodeAgent",
  project_id,
  prompt: "Say hello.",
  model: "demo",
  ...more,
});
const balance = (user: ApiUser) => user.client.call("billing.balance", {});
const end = async (state: "completed" | "failed", more = {}) => {
  const { id, attempt } = await server.claim();
  await finishTask(server.test.database.db, { task_id: id, attempt, state, ...more });
  return id;
};

describe("[AG-3] agent.*", () => {
  it("agent.list tells who they are, what runs them and what they may do", async () => {
    const { agents } = await ada.client.call("agent.list", {});
    expect(agents.find(({ name }) => name === "CodeAgent")).toEqual({
      name: "CodeAgent",
      description: expect.any(String),
      runners: ["native", "opencode"],
      permissions: { edit: true, bash: true, network: true },
      repair_rounds: expect.any(Number),
    });
    expect(agents.find(({ name }) => name === "SecurityAgent")?.permissions).toEqual({
      edit: false,
      bash: false,
      network: false,
    });
  });

  it("a task is dispatched, waits, runs, ends, and tells so", async () => {
    const first = await ada.client.call("agent.dispatch", wanted());
    expect(first).toMatchObject({ state: "pending", position: 1 });
    const second = await ada.client.call("agent.dispatch", wanted({ runner: "opencode", priority: 1 }));
    expect(second.position).toBe(2);
    expect(await balance(ada)).toEqual({ balance_microcredits: 10_000_000, held_microcredits: 2000 });
    const { id, attempt } = await server.claim();
    expect(id).toBe(first.task_id);
    const running = await ada.client.call("agent.status", { task_id: id });
    expect(running).toMatchObject({
      state: "running",
      attempt: 1,
      agent: "CodeAgent",
      runner: "native",
      model: "demo",
    });
    expect(running.position).toBeUndefined();
    expect(running.started_at).toBeDefined();
    const error = { code: "RunFailed", message: "It broke.", hint: "Look." };
    await finishTask(server.test.database.db, { task_id: id, attempt, state: "failed", error });
    const ended = await ada.client.call("agent.status", { task_id: id });
    expect(ended).toMatchObject({ state: "failed", error, usage: { input_tokens: 0, cost_microcredits: 0 } });
    expect(ended.finished_at).toBeDefined();
    expect((await ada.client.call("agent.cancel", { task_id: second.task_id })).state).toBe("cancelled");
    expect(await balance(ada)).toMatchObject({ held_microcredits: 0 });
  });

  it("cancel of a running task asks for its end, of an ended one answers its state, of others' says nothing", async () => {
    const { task_id } = await ada.client.call("agent.dispatch", wanted());
    const eve = await server.user();
    for (const method of ["agent.cancel", "agent.status"] as const) {
      await expect(eve.client.call(method, { task_id })).rejects.toMatchObject({ code: "NotFound" });
    }
    const { attempt } = await server.claim();
    expect(await ada.client.call("agent.cancel", { task_id })).toEqual({ task_id, state: "running" });
    await finishTask(server.test.database.db, { task_id, attempt, state: "cancelled" });
    expect(await ada.client.call("agent.cancel", { task_id })).toEqual({ task_id, state: "cancelled" });
    await expect(ada.client.call("agent.cancel", { task_id: "tsk_none" })).rejects.toMatchObject({
      code: "NotFound",
    });
  });

  it("an administrator may end anybody's task but not read it", async () => {
    const admin = await server.user("root", "admin");
    const { task_id } = await ada.client.call("agent.dispatch", wanted());
    await expect(admin.client.call("agent.status", { task_id })).rejects.toMatchObject({ code: "NotFound" });
    expect((await admin.client.call("agent.cancel", { task_id })).state).toBe("cancelled");
  });

  it("the same idempotency key is the same task, and not another", async () => {
    const idempotency_key = newId("call");
    const [one, two] = await Promise.all([
      ada.client.call("agent.dispatch", wanted({ idempotency_key })),
      ada.client.call("agent.dispatch", wanted({ idempotency_key })),
    ]);
    expect(two?.task_id).toBe(one?.task_id);
    await expect(
      ada.client.call("agent.dispatch", wanted({ idempotency_key, prompt: "Something else." })),
    ).rejects.toMatchObject({ code: "Conflict", details: { task_id: one?.task_id } });
    await end("completed");
    expect(await ada.client.call("agent.dispatch", wanted({ idempotency_key }))).toEqual({
      task_id: one?.task_id,
      state: "completed",
    });
  });

  it("a repeat is answered although its project has gone since", async () => {
    const user = await server.user();
    const task = wanted({ project_id: await server.project(user), idempotency_key: newId("call") });
    const { task_id } = await user.client.call("agent.dispatch", task);
    await user.client.call("project.delete", { id: task.project_id });
    expect(await user.client.call("agent.dispatch", task)).toMatchObject({ task_id, state: "cancelled" });
  });

  it("[DB-6] history is newest first, page by page, by project and by state", async () => {
    const user = await server.user();
    const project = await server.project(user);
    const ids: string[] = [];
    for (let i = 0; i < 5; i += 1) {
      ids.unshift(await server.dispatch(user, project));
      await end(i === 0 ? "failed" : "completed");
    }
    const seen: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await user.client.call("agent.history", {
        limit: 2,
        ...(cursor === undefined ? {} : { cursor }),
      });
      seen.push(...page.tasks.map(({ task_id }) => task_id));
      cursor = page.next_cursor;
    } while (cursor !== undefined);
    expect(seen).toEqual(ids);
    const failed = await user.client.call("agent.history", { state: "failed", project_id: project });
    expect(failed.tasks.map(({ task_id }) => task_id)).toEqual(ids.slice(-1));
    // The record outlives the project for its owner; for others there is none.
    await expect(ada.client.call("agent.history", { project_id: project })).rejects.toMatchObject({
      code: "NotFound",
    });
    await deleteProject(server.test.database.db, project);
    expect((await user.client.call("agent.history", { project_id: project })).tasks).toHaveLength(5);
    await expect(user.client.call("agent.history", { cursor: "§" })).rejects.toMatchObject({
      code: "InvalidParams",
    });
  });
});

describe("[AG-3] what is not dispatched, and changes nothing", () => {
  const refused = (more: Partial<MethodInput<"agent.dispatch">>, user = ada) =>
    expect(user.client.call("agent.dispatch", wanted(more))).rejects;

  it("unknown agents, with the one that was meant", async () => {
    await refused({ agent: "CodeAgnt" }).toMatchObject({
      code: "InvalidParams",
      details: { hint: 'Did you mean "CodeAgent"?', issues: [{ path: "params.agent" }] },
    });
    await refused({ agent: "zzz" }).toMatchObject({
      details: { hint: expect.stringMatching(/^Known: CodeAgent, /) },
    });
    await refused({ runner: "bash" as "opencode" }).toMatchObject({ code: "InvalidParams" });
  });

  it("projects that are not there, or somebody else's", async () => {
    const eve = await server.user();
    await refused({ project_id: "prj_none" }).toMatchObject({ code: "NotFound" });
    await refused({ project_id }, eve).toMatchObject({ code: "NotFound" });
  });

  it("[MU-4] models nobody has a key for, and ones a provider does not list", async () => {
    await refused({ model: "gpt-5-mini" }).toMatchObject({
      code: "NoProviderKey",
      message: expect.stringContaining("set one with provider.set or OPENAI_API_KEY"),
    });
    const user = await server.user();
    const own = await server.project(user);
    await user.client.call("provider.set", {
      base_url: "https://p.example/v1",
      api_key: "sk-x",
      models: ["a"],
    });
    await refused({ model: "b", project_id: own }, user).toMatchObject({ code: "ModelNotFound" });
    const taken = await user.client.call("agent.dispatch", wanted({ model: "a", project_id: own }));
    await user.client.call("agent.cancel", { task_id: taken.task_id });
  });

  it("[US-3] without balance", async () => {
    const poor = await server.user(undefined, "developer", 0);
    const own = await server.project(poor);
    const { status, body } = await server.post(
      { jsonrpc: "2.0", method: "agent.dispatch", params: wanted({ project_id: own }), id: 1 },
      poor.token,
    );
    expect(status).toBe(402);
    expect(body.error).toMatchObject({ code: -32402, data: { code: "InsufficientBalance" } });
    expect((await poor.client.call("agent.history", {})).tasks).toEqual([]);
  });

  it("beyond the number that may wait", async () => {
    const user = await server.user();
    const own = await server.project(user);
    for (let i = 0; i < 3; i += 1) await server.dispatch(user, own);
    await refused({ project_id: own }, user).toMatchObject({ code: "QuotaExceeded" });
  });

  it("by a viewer, or with a prompt of blanks or with NUL", async () => {
    const viewer = await server.user(undefined, "viewer");
    await refused({}, viewer).toMatchObject({ code: "Forbidden" });
    await refused({ prompt: "  \n" }).toMatchObject({ code: "InvalidParams" });
    await refused({ prompt: "a\0b" }).toMatchObject({ details: { issues: [{ path: "params.prompt" }] } });
  });
});
