import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { AdminUserView, Session } from "#schemas";
import { type AuthServer, authServer } from "#tests/support/auth-server.ts";

let server: AuthServer;
let admin: Session;
beforeAll(async () => {
  server = await authServer();
  admin = await server.user("root@example.org", "admin");
});
afterAll(() => server[Symbol.asyncDispose]());

const call = (method: string, path: string, body?: unknown, headers?: Record<string, string>) =>
  server.call(method, path, body, admin.access_token, headers);
const me = (bearer: string) => server.call("GET", "/auth/me", undefined, bearer);

async function create(username: string, role?: string): Promise<AdminUserView> {
  const password = `password of ${username}`;
  const { status, body } = await call(
    "POST",
    "/admin/users",
    role === undefined ? { username, password } : { username, password, role },
  );
  expect(status).toBe(200);
  return body as unknown as AdminUserView;
}

describe("administration of users", () => {
  it("[US-4] is for administrators only", async () => {
    const developer = await server.user("dev", "developer");
    const viewer = await server.user("view", "viewer");
    const routes = [
      ["GET", "/admin/users"],
      ["POST", "/admin/users"],
      ["PUT", `/admin/users/${viewer.user.id}/balance`],
      ["PUT", `/admin/users/${viewer.user.id}/role`],
      ["DELETE", `/admin/users/${viewer.user.id}`],
      ["GET", `/admin/users/${viewer.user.id}/usage`],
    ] as const;
    for (const [method, path] of routes) {
      expect((await server.call(method, path)).status).toBe(401);
      for (const { access_token } of [developer, viewer]) {
        const { status, body } = await server.call(method, path, undefined, access_token);
        expect([status, body.error?.code]).toEqual([403, "Forbidden"]);
        expect(body.error?.hint).toMatch(/Your role is (developer|viewer)/);
      }
    }
    expect((await me(viewer.access_token)).body).toMatchObject({ user: { role: "viewer" } });
  });

  it("[US-4] creates users, with the first balance and the role asked for", async () => {
    const user = await create("new1");
    expect(user).toEqual({
      id: expect.stringMatching(/^usr_/),
      username: "new1",
      role: "developer",
      balance_microcredits: server.config.billing.initialBalance,
      held_microcredits: 0,
      created_at: expect.stringMatching(/^\d{4}-.*Z$/),
    });
    expect((await create("new2", "viewer")).role).toBe("viewer");
    const login = await server.call("POST", "/auth/login", {
      username: "new1",
      password: "password of new1",
    });
    expect(login.status).toBe(200);
    expect((await call("POST", "/admin/users", { username: "new1", password: "long enough" })).status).toBe(
      409,
    );
    const bad = await call("POST", "/admin/users", {
      username: "new3",
      password: "long enough",
      role: "king",
    });
    expect(bad).toMatchObject({ status: 400, body: { error: { issues: [{ path: "role" }] } } });
  });

  it("[US-4] [DB-6] lists users page by page, each once", async () => {
    for (let index = 0; index < 7; index++) await create(`page${index}`);
    const seen: string[] = [];
    let cursor: string | undefined;
    let pages = 0;
    do {
      const { status, body } = await call(
        "GET",
        `/admin/users?limit=3${cursor === undefined ? "" : `&cursor=${cursor}`}`,
      );
      expect(status).toBe(200);
      seen.push(...(body.users as AdminUserView[]).map(({ username }) => username));
      cursor = body.next_cursor as string | undefined;
      pages += 1;
    } while (cursor !== undefined);
    expect(pages).toBeGreaterThan(2);
    expect(new Set(seen).size).toBe(seen.length);
    for (let index = 0; index < 7; index++) expect(seen).toContain(`page${index}`);
    for (const query of ["limit=0", "limit=abc", "limit=201", "cursor=%00", "cursor=", "order=name"]) {
      expect((await call("GET", `/admin/users?${query}`)).status, query).toBe(400);
    }
  });

  it("[US-4] sets balances, each with its row in the ledger", async () => {
    const { id } = await create("rich");
    const set = (balance_microcredits: unknown, headers?: Record<string, string>) =>
      call("PUT", `/admin/users/${id}/balance`, { balance_microcredits }, headers);
    expect(await set(5)).toMatchObject({
      status: 200,
      body: { id, balance_microcredits: 5, held_microcredits: 0 },
    });
    expect((await set(1_000_000, { "idempotency-key": "a" })).body.balance_microcredits).toBe(1_000_000);
    expect((await set(7)).body.balance_microcredits).toBe(7);
    // The same request again, arriving late, changes nothing.
    expect((await set(1_000_000, { "idempotency-key": "a" })).body.balance_microcredits).toBe(7);
    const rows = await server.test.database.db
      .selectFrom("ledger_entries")
      .select(["kind", "balance_delta", "note"])
      .where("user_id", "=", id)
      .orderBy("id")
      .execute();
    expect(rows.reduce((sum, { balance_delta }) => sum + balance_delta, 0)).toBe(7);
    expect(rows.at(-1)).toMatchObject({ kind: "grant", note: `set by ${admin.user.id}` });
    for (const bad of [-1, 1.5, "5", null, 2 ** 53, undefined]) expect((await set(bad)).status).toBe(400);
    expect((await set(5, { "idempotency-key": "x".repeat(200) })).status).toBe(400);
  });

  it("refuses a balance below what is held for running work", async () => {
    const { id } = await create("busy");
    const { db } = server.test.database;
    await db.updateTable("users").set({ token_held: 1000 }).where("id", "=", id).execute();
    const refused = await call("PUT", `/admin/users/${id}/balance`, { balance_microcredits: 999 });
    expect(refused).toMatchObject({ status: 409, body: { error: { code: "Conflict" } } });
    const taken = await call("PUT", `/admin/users/${id}/balance`, { balance_microcredits: 1000 });
    expect(taken).toMatchObject({ status: 200, body: { held_microcredits: 1000 } });
  });

  it("[US-4] changes roles, at once", async () => {
    const session = await server.register("riser");
    const { id } = session.user;
    expect((await server.call("GET", "/admin/users", undefined, session.access_token)).status).toBe(403);
    const raised = await call("PUT", `/admin/users/${id}/role`, { role: "admin" });
    expect(raised).toMatchObject({ status: 200, body: { id, role: "admin" } });
    expect((await server.call("GET", "/admin/users", undefined, session.access_token)).status).toBe(200);
    await call("PUT", `/admin/users/${id}/role`, { role: "viewer" });
    expect((await server.call("GET", "/admin/users", undefined, session.access_token)).status).toBe(403);
    expect((await call("PUT", `/admin/users/${id}/role`, { role: "king" })).status).toBe(400);
  });

  it("[US-4] deletes users, whose tokens are worth nothing at once", async () => {
    const session = await server.register("leaver");
    const { body } = await server.call("POST", "/auth/api-key/generate", undefined, session.access_token);
    expect((await call("DELETE", `/admin/users/${session.user.id}`)).body).toEqual({ deleted: true });
    expect((await me(session.access_token)).status).toBe(401);
    expect((await me(body.api_key as string)).status).toBe(401);
    const refreshed = await server.call("POST", "/auth/refresh", { refresh_token: session.refresh_token });
    expect(refreshed.status).toBe(401);
    expect((await call("DELETE", `/admin/users/${session.user.id}`)).status).toBe(404);
    await server.register("leaver");
  });

  it("never loses the last administrator", async () => {
    const { id } = admin.user;
    for (const [method, path, body] of [
      ["DELETE", `/admin/users/${id}`, undefined],
      ["PUT", `/admin/users/${id}/role`, { role: "viewer" }],
    ] as const) {
      expect(await call(method, path, body)).toMatchObject({
        status: 409,
        body: { error: { code: "Conflict" } },
      });
    }
    expect((await me(admin.access_token)).status).toBe(200);
  });

  it("[US-3] [US-4] sums what a user has used, by model", async () => {
    const { id } = await create("user1");
    const usage = () => call("GET", `/admin/users/${id}/usage`);
    const nothing = {
      user_id: id,
      calls: 0,
      input_tokens: 0,
      output_tokens: 0,
      cached_tokens: 0,
      cost_microcredits: 0,
      models: [],
    };
    expect((await usage()).body).toEqual(nothing);
    const { db } = server.test.database;
    for (const [index, model] of ["m1", "m2", "m1"].entries()) {
      const call_id = `llm_${id}_${index}`;
      await db
        .insertInto("llm_calls")
        .values({ id: call_id, user_id: id, model, instance_id: "i", hold_microcredits: 1, state: "settled" })
        .execute();
      await db
        .insertInto("tokens_used")
        .values({
          call_id,
          user_id: id,
          model_id: model,
          endpoint: "chat",
          input_tokens: 10,
          output_tokens: 5,
          cost_microcredits: 30,
          counted_by: "provider",
        })
        .execute();
    }
    expect((await usage()).body).toEqual({
      user_id: id,
      calls: 3,
      input_tokens: 30,
      output_tokens: 15,
      cached_tokens: 0,
      cost_microcredits: 90,
      models: [
        {
          model: "m1",
          calls: 2,
          input_tokens: 20,
          output_tokens: 10,
          cached_tokens: 0,
          cost_microcredits: 60,
        },
        {
          model: "m2",
          calls: 1,
          input_tokens: 10,
          output_tokens: 5,
          cached_tokens: 0,
          cost_microcredits: 30,
        },
      ],
    });
  });

  it("knows nobody by an unknown or impossible id", async () => {
    for (const id of ["usr_none", "%00", "a%2Fb", "x".repeat(65), "%F0%9F%98%80"]) {
      for (const [method, path, body] of [
        ["PUT", "balance", { balance_microcredits: 5 }],
        ["PUT", "role", { role: "viewer" }],
        ["GET", "usage", undefined],
      ] as const) {
        const { status, body: answer } = await call(method, `/admin/users/${id}/${path}`, body);
        expect([status, answer.error?.code], `${id} ${path}`).toEqual([404, "NotFound"]);
      }
      expect((await call("DELETE", `/admin/users/${id}`)).status).toBe(404);
    }
  });

  it("puts every change on record with who made it", async () => {
    const { id } = await create("traced");
    await call("PUT", `/admin/users/${id}/role`, { role: "viewer" });
    const lines = server.log.filter((line) => line.includes(id) && line.includes(admin.user.id));
    expect(lines).toHaveLength(2);
  });
});
