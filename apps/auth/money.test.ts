import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openCall, settleCall, usableModels } from "#database";
import { newId } from "#platform";
import type { Session } from "#schemas";
import { type AuthServer, authServer } from "#tests/support/auth-server.ts";

let server: AuthServer;
let admin: Session;
beforeAll(async () => {
  server = await authServer({
    CDS_PRICE_INPUT_PER_MILLION: "100",
    CDS_PRICE_CACHED_PER_MILLION: "10",
    CDS_PRICE_OUTPUT_PER_MILLION: "400",
  });
  admin = await server.user("root@example.org", "admin");
});
afterAll(() => server[Symbol.asyncDispose]());

const call = (method: string, path: string, body?: unknown) =>
  server.call(method, path, body, admin.access_token);

async function use(user_id: string, model: string, cost: number): Promise<void> {
  const { db } = server.test.database;
  const call_id = newId("call");
  await openCall(db, { call_id, user_id, model, instance_id: "i", hold: cost });
  const tokens = { input_tokens: 10, output_tokens: 5, cached_tokens: 2 };
  await settleCall(db, { call_id, ...tokens, cost, counted_by: "provider", endpoint: "/v1/x" });
}

describe("[US-3] [US-4] prices", () => {
  const path = (model: string) => `/admin/models/${encodeURIComponent(model)}/price`;

  it("are for administrators only", async () => {
    const developer = await server.user("dev", "developer");
    for (const [method, route] of [
      ["GET", "/admin/prices"],
      ["PUT", path("m")],
      ["DELETE", path("m")],
    ] as const) {
      expect((await server.call(method, route)).status).toBe(401);
      expect((await server.call(method, route, undefined, developer.access_token)).status).toBe(403);
    }
  });

  it("are set, listed and taken away, whatever the model's name", async () => {
    const model = "hub/org/model-7b:Q4_K_M %?#é";
    const price = { input_per_million: 7, output_per_million: 9, cached_per_million: 3 };
    expect(await call("PUT", path(model), price)).toMatchObject({ status: 200, body: { model, ...price } });
    expect((await call("PUT", path("plain"), { input_per_million: 1, output_per_million: 2 })).body).toEqual({
      model: "plain",
      input_per_million: 1,
      output_per_million: 2,
      cached_per_million: null,
    });
    const list = await call("GET", "/admin/prices");
    expect(list.body).toEqual({
      defaults: { input_per_million: 100, cached_per_million: 10, output_per_million: 400 },
      models: [
        { model, ...price },
        { model: "plain", input_per_million: 1, output_per_million: 2, cached_per_million: null },
      ],
    });
    // What a call of it costs from now on.
    const provider = { apiKey: "k", baseUrl: "https://x.example/v1", models: [model, "plain", "other"] };
    const options = { provider, billing: server.config.billing, user_id: admin.user.id };
    const costs = async () =>
      (await usableModels(server.test.database.db, options))
        .filter(({ source }) => source === "server")
        .map(({ inputPerMillion, cachedPerMillion, outputPerMillion }) => [
          inputPerMillion,
          cachedPerMillion,
          outputPerMillion,
        ]);
    expect(await costs()).toEqual([
      [7, 3, 9],
      [1, 1, 2],
      [100, 10, 400],
    ]);
    expect((await call("DELETE", path(model))).body).toEqual({ deleted: true });
    expect((await call("DELETE", path(model))).body).toEqual({ deleted: false });
    expect((await costs())[0]).toEqual([100, 10, 400]);
    await call("DELETE", path("plain"));
    expect((await call("GET", "/admin/prices")).body.models).toEqual([]);
    const lines = server.log.filter((line) => line.includes("price") && line.includes(admin.user.id));
    expect(lines.length).toBeGreaterThanOrEqual(4);
  });

  it("come page by page, each once", async () => {
    const names = ["b/1", "a", "b/2", "c", "b"];
    for (const name of names) await call("PUT", path(name), { input_per_million: 1, output_per_million: 1 });
    const seen: string[] = [];
    let cursor: string | undefined;
    do {
      const next = cursor === undefined ? "" : `&cursor=${cursor}`;
      const { body } = await call("GET", `/admin/prices?limit=2${next}`);
      seen.push(...(body.models as { model: string }[]).map(({ model }) => model));
      cursor = body.next_cursor as string | undefined;
    } while (cursor !== undefined);
    expect(seen).toHaveLength(names.length);
    expect([...seen].sort()).toEqual([...names].sort());
    for (const query of ["cursor=", "cursor=AA", "cursor=!", "limit=0", "order=x"]) {
      expect((await call("GET", `/admin/prices?${query}`)).status, query).toBe(400);
    }
  });

  it("refuses what is no price, and names no model can have", async () => {
    const good = { input_per_million: 5, output_per_million: 5 };
    for (const bad of [
      {},
      { input_per_million: 5 },
      { ...good, input_per_million: -1 },
      { ...good, input_per_million: 0.5 },
      { ...good, output_per_million: 1e13 },
      { ...good, cached_per_million: 6 },
      { ...good, more: 1 },
    ]) {
      const { status, body } = await call("PUT", path("m"), bad);
      expect([status, body.error?.code], JSON.stringify(bad)).toEqual([400, "InvalidParams"]);
    }
    for (const name of ["%00", "%0A", "x".repeat(201)]) {
      expect((await call("PUT", `/admin/models/${name}/price`, good)).status, name).toBe(404);
    }
  });
});

describe("[US-4] budgets of users", () => {
  it("are set and taken away by administrators, and shown with the user", async () => {
    const session = await server.register("spender");
    const { id } = session.user;
    const set = (body: unknown) => call("PUT", `/admin/users/${id}/budget`, body);
    const month = { limit_microcredits: 5000, period: "month" };
    expect(await set({ limit_microcredits: 5000 })).toMatchObject({
      status: 200,
      body: {
        id,
        budget: { ...month, spent_microcredits: 0, resets_at: expect.stringMatching(/-01T00:00/) },
      },
    });
    await use(id, "m", 1200);
    const { body } = await call("GET", "/admin/users?limit=200");
    const users = body.users as { id: string; budget?: unknown }[];
    expect(users.find((user) => user.id === id)?.budget).toMatchObject({ spent_microcredits: 1200 });
    expect(users.find((user) => user.id === admin.user.id)?.budget).toBeUndefined();
    const role = await call("PUT", `/admin/users/${id}/role`, { role: "viewer" });
    expect(role.body.budget).toMatchObject(month);
    const total = await set({ limit_microcredits: 0, period: "total" });
    expect(total.body.budget).toEqual({
      limit_microcredits: 0,
      period: "total",
      spent_microcredits: 1200,
      resets_at: null,
    });
    expect((await set({ limit_microcredits: null })).body.budget).toBeUndefined();
    const own = await server.call("PUT", `/admin/users/${id}/budget`, month, session.access_token);
    expect(own.status).toBe(403);
    for (const bad of [{}, { limit_microcredits: -1 }, { limit_microcredits: 5, period: "week" }]) {
      expect((await set(bad)).status).toBe(400);
    }
    expect((await call("PUT", "/admin/users/usr_none/budget", month)).status).toBe(404);
    const lines = server.log.filter((line) => line.includes(id) && line.includes('"limit":5000'));
    expect(lines).toHaveLength(1);
  });
});

describe("[US-4] use of users", () => {
  it("within a range, and by what is asked for", async () => {
    const { user } = await server.register("user");
    await use(user.id, "a", 30);
    await use(user.id, "b", 50);
    const usage = (query: string) => call("GET", `/admin/users/${user.id}/usage?${query}`);
    const sums = { calls: 1, input_tokens: 10, output_tokens: 5, cached_tokens: 2 };
    expect((await usage("")).body).toEqual({
      user_id: user.id,
      calls: 2,
      input_tokens: 20,
      output_tokens: 10,
      cached_tokens: 4,
      cost_microcredits: 80,
      models: [
        { model: "b", ...sums, cost_microcredits: 50 },
        { model: "a", ...sums, cost_microcredits: 30 },
      ],
    });
    const byDay = await usage("group_by=day&time_zone=Europe/Berlin");
    expect(byDay.body).toMatchObject({ groups: [{ calls: 2, cost_microcredits: 80 }], omitted: 0 });
    const later = new Date(Date.now() + 60_000).toISOString();
    expect((await usage(`from=${later}`)).body).toMatchObject({ calls: 0, models: [] });
    expect((await usage(`to=${later}`)).body).toMatchObject({ calls: 2 });
    for (const bad of ["from=x", "group_by=x", "time_zone=Mars/Olympus", "more=1"]) {
      expect((await usage(bad)).status, bad).toBe(400);
    }
  });
});
