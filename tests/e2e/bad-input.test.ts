import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestStudio, type TestStudio, type TestUser } from "../support/studio.ts";
import { dispatch, ended } from "../support/tasks.ts";

/** Bad input gets a clear error and changes nothing, on the whole product as people run it. */
describe("bad input", () => {
  let studio: TestStudio;
  let user: TestUser;

  beforeAll(async () => {
    studio = await startTestStudio();
    user = await studio.user("ada");
  }, 120_000);
  afterAll(() => studio?.[Symbol.asyncDispose](), 60_000);

  const rpc = async (body: string | Uint8Array, token: string | undefined = user.session.access_token) => {
    const response = await fetch(`${studio.url}/rpc`, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      },
      body: body as BodyInit,
    });
    const answer = (await response.json()) as {
      error?: { code: number; message: string; data: Record<string, unknown> };
    };
    return { status: response.status, error: answer.error };
  };
  const call = (method: string, params: unknown) =>
    rpc(JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }));

  it("[GW-1] names unknown methods and wrong fields", async () => {
    expect(await call("agent.dispach", {})).toMatchObject({
      status: 404,
      error: {
        code: -32601,
        data: { code: "MethodNotFound", hint: expect.stringContaining("agent.dispatch") },
      },
    });
    const wrong = await call("agent.dispatch", {
      agent: "CodeAgent",
      project_id: 7,
      prompt: "",
      model: "demo",
      extra: 1,
    });
    expect(wrong).toMatchObject({ status: 400, error: { code: -32602, data: { code: "InvalidParams" } } });
    const fields = ((wrong.error?.data.issues ?? []) as { path: string }[]).map((issue) => issue.path);
    expect(fields).toEqual(expect.arrayContaining(["params.project_id", "params.prompt"]));
  });

  it("[GW-2] refuses broken UTF-8, forged tokens and oversized bodies", async () => {
    expect(await rpc(Uint8Array.of(0x7b, 0xff, 0x7d))).toMatchObject({
      status: 400,
      error: { code: -32700 },
    });
    const me = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "session.me", params: {} });
    const [head, body] = user.session.access_token.split(".");
    for (const token of ["nonsense", `${head}.${body}.AAAA`, `cds_${"x".repeat(43)}`]) {
      expect(await rpc(me, token)).toMatchObject({
        status: 401,
        error: { data: { code: "Unauthenticated" } },
      });
    }
    const big = JSON.stringify({
      jsonrpc: "2.0",
      id: 1,
      method: "session.me",
      params: { x: "y".repeat(17 * 1024 * 1024) },
    });
    expect(await rpc(big)).toMatchObject({ status: 413, error: { data: { code: "PayloadTooLarge" } } });
  });

  it("[MU-4] says what to do where no key is, and queues nothing", async () => {
    const { id } = await user.client.call("project.create", { name: "Ohne Schlüssel" });
    const refused = await call("agent.dispatch", {
      agent: "CodeAgent",
      project_id: id,
      prompt: "x",
      model: "gpt-x",
    });
    expect(refused.error?.data.code).toBe("NoProviderKey");
    expect(JSON.stringify(refused.error)).toContain("set one with provider.set or OPENAI_API_KEY");
    expect((await user.client.call("agent.history", {})).tasks).toEqual([]);
    expect((await user.client.call("billing.balance", {})).held_microcredits).toBe(0);
  });

  it("[SB-fs] lets no path lead out of a project", async () => {
    const { id } = await user.client.call("project.create", { name: "Pfade" });
    for (const path of [
      "../x",
      "/etc/passwd",
      "a/../../x",
      "a\0b",
      ".git/hooks/pre-commit",
      "x".repeat(2000),
    ]) {
      const answer = await call("fs.write", { project_id: id, path, content: "x" });
      expect(answer.error?.data.code).toBe("InvalidParams");
    }
    expect((await user.client.call("project.open", { id })).revision).toBe(0);
  });

  it("[AG-3] tells a stranger's task apart from none by nothing", async () => {
    const stranger = await studio.user("bob");
    const { taskId } = await dispatch(user, { template: "sample", model: "demo", prompt: "Hello" });
    const foreign = await stranger.client
      .call("agent.status", { task_id: taskId })
      .catch((error: unknown) => error);
    const missing = await stranger.client
      .call("agent.status", { task_id: "tsk_none" })
      .catch((error: unknown) => error);
    expect(foreign).toMatchObject({ code: "NotFound" });
    expect(missing).toMatchObject({ code: "NotFound" });
    await user.client.call("agent.cancel", { task_id: taskId });
    expect((await ended(user, taskId)).state).toBe("cancelled");
    const { agents } = await user.client.call("agent.list", {});
    expect(agents.map((agent) => agent.name)).toContain("CodeAgent");
    expect((await user.client.call("agent.history", {})).tasks.map((task) => task.task_id)).toContain(taskId);
  });

  it("answers on every port whether it can serve", async () => {
    for (const url of Object.values(studio.studio.urls)) {
      const response = await fetch(`${url}/health`);
      expect(response.status).toBe(200);
      expect(await response.json()).toMatchObject({ status: "ok" });
    }
  });
});
