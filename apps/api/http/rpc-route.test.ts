import { request as httpRequest } from "node:http";
import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AccessTokens } from "#platform";
import { type ApiServer, type ApiUser, apiServer } from "#tests/support/api-server.ts";

let server: ApiServer;
let ada: ApiUser;

beforeAll(async () => {
  server = await apiServer({ CDS_MAX_BATCH: "10", CDS_MAX_BODY_BYTES: "300000" });
  ada = await server.user("ada");
});
afterAll(() => server[Symbol.asyncDispose]());

const me = (id: unknown) => ({ jsonrpc: "2.0", method: "session.me", params: {}, id });

describe("[GW-2] errors name what is wrong", () => {
  it("the nearest method is suggested", async () => {
    const hint = async (method: string) =>
      (await server.post({ jsonrpc: "2.0", method, id: 1 })).body.error.data.hint;
    expect(await hint("agent.dispach")).toBe('Did you mean "agent.dispatch"?');
    expect(await hint("fs/raed")).toBe('Did you mean "fs.read"?');
    expect(await hint("zzzzzzzzzzzzzzzzzzzzzzzz")).toContain("rpc.discover");
  });

  it("every wrong field is named by its path", async () => {
    const params = { agent: "", prompt: 5, project_id: 7, model: "demo", priority: 10, colour: "red" };
    const { status, body } = await server.post(
      { jsonrpc: "2.0", method: "agent.dispatch", params, id: 1 },
      ada.token,
    );
    expect(status).toBe(400);
    const paths = body.error.data.issues.map(({ path }: { path: string }) => path).sort();
    expect(paths).toEqual([
      "params.agent",
      "params.colour",
      "params.priority",
      "params.project_id",
      "params.prompt",
    ]);
    expect(body.error.message).toContain("(and 4 more)");
  });

  it("text that could not be kept as it came is refused, wherever it stands", async () => {
    const set = (models: string[]) =>
      server.post(
        { jsonrpc: "2.0", method: "provider.set", params: { base_url: "https://a.example", models }, id: 1 },
        ada.token,
      );
    for (const bad of ["a\0b", "\ud800"]) {
      const { body } = await set(["ok", bad]);
      expect(body.error.data.issues[0].path).toBe("params.models[1]");
    }
  });

  it("who is not signed in is told so, with 401", async () => {
    for (const token of [undefined, "garbage", `${ada.token}x`, "cds_unknown", "a.b.c"]) {
      const { status, body, headers } = await server.post(me(1), token);
      expect(status).toBe(401);
      expect(headers.get("www-authenticate")).toBe("Bearer");
      expect(body).toMatchObject({ id: 1, error: { code: -32001, data: { code: "Unauthenticated" } } });
    }
    const basic = await server.post(me(1), undefined, { authorization: "Basic YWRhOmFkYQ==" });
    expect(basic.status).toBe(401);
  });

  it("an expired token and a task's token are refused", async () => {
    const past = await AccessTokens.open(server.secrets, -10);
    const user = { id: ada.id, username: "ada", role: "developer" as const, token_version: 0 };
    const expired = await server.post(me(1), (await past.issue(user)).token);
    expect(expired).toMatchObject({
      status: 401,
      body: { error: { message: expect.stringContaining("expired") } },
    });
    const ofTask = await server.taskTokens.issue({
      task_id: "t",
      user_id: ada.id,
      attempt: 1,
      ttlSeconds: 60,
    });
    expect((await server.post(me(1), ofTask)).status).toBe(401);
  });

  it("a viewer may look but not change", async () => {
    const viewer = await server.user("viewer", "viewer");
    expect((await server.post(me(1), viewer.token)).status).toBe(200);
    const { status, body } = await server.post(
      { jsonrpc: "2.0", method: "provider.delete", id: 1 },
      viewer.token,
    );
    expect(status).toBe(403);
    expect(body.error).toMatchObject({ code: -32003, message: expect.stringContaining("developer") });
  });

  it("methods that need a connection say where they work", async () => {
    const { status, body } = await server.post(
      { jsonrpc: "2.0", method: "agent.subscribe", params: { task_id: "x" }, id: 1 },
      ada.token,
    );
    expect(status).toBe(400);
    expect(body.error.message).toContain("WebSocket");
  });

  it("a batch over the limit is refused as a whole", async () => {
    const { status, body } = await server.post(
      Array.from({ length: 11 }, (_, id) => me(id)),
      ada.token,
    );
    expect(status).toBe(400);
    expect(body).toMatchObject({
      id: null,
      error: { code: -32600, data: { hint: expect.stringContaining("10") } },
    });
  });

  it("a body over the limit is a 413 that the sender can read", async () => {
    const big = JSON.stringify({ ...me(1), params: { x: "y".repeat(400_000) } });
    const { status, body } = await server.post(big, ada.token);
    expect(status).toBe(413);
    expect(body).toMatchObject({ id: null, error: { code: -32013, data: { limit_bytes: 300_000 } } });
    // Nameless callers get less room, and are told to sign in.
    expect((await server.post(`"${"y".repeat(100_000)}"`)).status).toBe(401);
    expect((await server.post(`"${"y".repeat(100_000)}"`, "garbage")).status).toBe(401);
  });

  it("an endless body is cut off", async () => {
    const outcome = await new Promise<string>((resolve) => {
      const request = httpRequest(`${server.url}/rpc`, { method: "POST" }, (response) => {
        response.resume();
        resolve(String(response.statusCode));
      });
      request.on("error", () => resolve("cut"));
      const chunk = Buffer.alloc(64 * 1024, 0x20);
      const pour = () => {
        while (!request.destroyed && request.write(chunk));
        if (!request.destroyed) request.once("drain", pour);
      };
      pour();
    });
    expect(["401", "cut"]).toContain(outcome);
  });

  it("a sender that breaks off harms nobody", async () => {
    await new Promise<void>((resolve) => {
      const request = httpRequest(`${server.url}/rpc`, {
        method: "POST",
        headers: { "content-length": "100" },
      });
      request.on("error", () => resolve());
      request.write("{");
      setTimeout(() => request.destroy(new Error("gone")), 50);
    });
    expect((await server.post(me(1), ada.token)).status).toBe(200);
  });
});

describe("[GW-2] what goes wrong on our side", () => {
  it("is named and logged, and tells nothing of itself", async () => {
    await using broken = await apiServer();
    const user = await broken.user();
    expect((await broken.post(me(1), user.token)).status).toBe(200);
    await broken.test.database.db.schema.dropTable("tokens_used").cascade().execute();
    await broken.dispatch(user);
    const { status, body, text } = await broken.post(
      { jsonrpc: "2.0", method: "agent.history", id: 1 },
      user.token,
    );
    expect(status).toBe(500);
    expect(body).toMatchObject({ id: 1, error: { code: -32603, data: { code: "InternalError" } } });
    expect(text).not.toMatch(/tokens_used|relation|SELECT|\.ts/);
    expect(broken.log.join("")).toContain("tokens_used");
  });

  it("a call that hangs is answered in time", async () => {
    await using slow = await apiServer({}, { call: 300 });
    const user = await slow.user();
    await slow.post(me(1), user.token);
    await slow.test.database.db.transaction().execute(async (trx) => {
      await sql`LOCK TABLE projects`.execute(trx);
      const request = { jsonrpc: "2.0", method: "project.list", id: 1 };
      const { status, body } = await slow.post(request, user.token);
      expect(status).toBe(504);
      expect(body.error.data.code).toBe("Timeout");
    });
  });

  it("a caller that leaves is noticed", async () => {
    await using slow = await apiServer();
    const user = await slow.user();
    await slow.test.database.db.transaction().execute(async (trx) => {
      await sql`LOCK TABLE projects`.execute(trx);
      const call = user.client.call("project.list", {}, { timeoutMs: 200 });
      await expect(call).rejects.toMatchObject({ code: "Timeout" });
    });
    expect((await user.client.call("project.list", {})).projects).toEqual([]);
  });
});

describe("[GW-2] rates", () => {
  it("beyond the user's rate a call is a 429 with Retry-After, and one of a batch fails alone", async () => {
    await using limited = await apiServer({ CDS_REQUESTS_PER_USER: "0.5", CDS_REQUESTS_PER_USER_BURST: "3" });
    const user = await limited.user();
    const other = await limited.user();
    const { body } = await limited.post([1, 2, 3, 4].map(me), user.token);
    expect(body.map((answer: { error?: unknown }) => answer.error === undefined)).toEqual([
      true,
      true,
      true,
      false,
    ]);
    const { status, headers, body: refused } = await limited.post(me(5), user.token);
    expect(status).toBe(429);
    expect(Number(headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
    expect(refused).toMatchObject({ id: 5, error: { code: -32029, data: { retry_after_seconds: 2 } } });
    expect((await limited.post(me(1), other.token)).status).toBe(200);
  });

  it("beyond the address's rate everything is, as a JSON-RPC error", async () => {
    await using limited = await apiServer({ CDS_REQUESTS_PER_IP: "0.1", CDS_REQUESTS_PER_IP_BURST: "2" });
    const user = await limited.user();
    expect((await limited.post(me(1), user.token)).status).toBe(200);
    expect((await limited.post(me(2), user.token)).status).toBe(200);
    const { status, body } = await limited.post(me(3), user.token);
    expect(status).toBe(429);
    expect(body).toMatchObject({ jsonrpc: "2.0", id: null, error: { code: -32029 } });
  });

  it("nameless calls count against the address", async () => {
    await using limited = await apiServer({ CDS_REQUESTS_PER_IP: "0.1", CDS_REQUESTS_PER_IP_BURST: "4" });
    const { body } = await limited.post(
      [1, 2, 3, 4, 5].map((id) => ({ jsonrpc: "2.0", method: "rpc.discover", id })),
    );
    expect(body.filter((answer: { error?: unknown }) => answer.error === undefined)).toHaveLength(3);
  });
});

describe("what is logged", () => {
  it("the method, its code and who called; neither params nor tokens", async () => {
    const api_key = "sk-canary-never-logged";
    await server.post(
      {
        jsonrpc: "2.0",
        method: "provider.set",
        params: { base_url: "https://p.example/v1", api_key, models: [] },
        id: 1,
      },
      ada.token,
    );
    const lines = server.log.join("");
    expect(lines).toContain('"method":"provider.set"');
    expect(lines).toContain(ada.id);
    expect(lines).not.toContain("canary");
    expect(lines).not.toContain(ada.token);
  });
});
