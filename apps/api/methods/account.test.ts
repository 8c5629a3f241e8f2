import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { getProvider } from "#database/accounts/index.ts";
import { resolveProvider } from "#database/accounts/provider-resolution.ts";
import { type ApiServer, type ApiUser, apiServer } from "#tests/support/api-server.ts";

let server: ApiServer;
let ada: ApiUser;

beforeAll(async () => {
  server = await apiServer();
  ada = await server.user("ada@example.org");
});
afterAll(() => server[Symbol.asyncDispose]());

describe("session.me", () => {
  it("says who the caller is", async () => {
    const { user } = await ada.client.call("session.me", {});
    expect(user).toEqual({ id: ada.id, username: "ada@example.org", role: "developer" });
  });
});

describe("[MU-4] provider.*", () => {
  const base_url = "https://api.example.com/v1";

  it("stores a key that only the server can open, for that host only, and never shows it", async () => {
    const set = await ada.client.call("provider.set", {
      base_url: `${base_url}/`,
      api_key: "sk-canary",
      models: ["b", "a", "b"],
    });
    expect(set).toMatchObject({ base_url, models: ["b", "a"], has_api_key: true, source: "user" });
    const { text } = await server.post({ jsonrpc: "2.0", method: "provider.get", id: 1 }, ada.token);
    expect(text).not.toContain("canary");
    const { db } = server.test.database;
    const row = await getProvider(db, ada.id);
    expect(row?.api_key_encrypted?.includes("canary")).toBe(false);
    const { secrets, config } = server;
    const options = { secrets, provider: config.provider, user_id: ada.id, model: "a" };
    expect(await resolveProvider(db, options)).toEqual({ source: "user", base_url, api_key: "sk-canary" });
    const sealed = row?.api_key_encrypted ?? Buffer.alloc(0);
    expect(() => secrets.open(sealed, `provider:${ada.id}:evil.example`)).toThrow();
    expect(() => secrets.open(sealed, "provider:usr_other:api.example.com")).toThrow();
  });

  it("keeps the key when only the models change, drops it with the address", async () => {
    const kept = await ada.client.call("provider.set", { base_url, models: ["c"] });
    expect(kept).toMatchObject({ models: ["c"], has_api_key: true });
    const moved = await ada.client.call("provider.set", { base_url: "https://other.example/v1", models: [] });
    expect(moved).toMatchObject({ has_api_key: false, source: "none" });
  });

  it("forgets", async () => {
    expect(await ada.client.call("provider.delete", {})).toEqual({ deleted: true });
    expect(await ada.client.call("provider.delete", {})).toEqual({ deleted: false });
    expect(await ada.client.call("provider.get", {})).toMatchObject({ has_api_key: false, source: "none" });
  });

  it("refuses addresses that hold secrets, and keys that no header can carry", async () => {
    const refused = (params: { base_url: string; api_key?: string }, path: string) =>
      expect(ada.client.call("provider.set", { models: [], ...params })).rejects.toMatchObject({
        code: "InvalidParams",
        details: { issues: [{ path: `params.${path}` }] },
      });
    await refused({ base_url: "https://user:pw@api.example.com/v1" }, "base_url");
    await refused({ base_url: "https://api.example.com/v1?key=1" }, "base_url");
    await refused({ base_url: "https://api.example.com/v1#x" }, "base_url");
    await refused({ base_url: "ftp://api.example.com" }, "base_url");
    await refused({ base_url, api_key: "a\nb" }, "api_key");
    await refused({ base_url, api_key: "schlüssel" }, "api_key");
  });

  it("tells when the server's own provider is used, without its key", async () => {
    await using keyed = await apiServer({
      OPENAI_API_KEY: "sk-server-canary",
      OPENAI_BASE_URL: "https://server.example/v1",
      OPENAI_MODELS: "m1,m2",
    });
    const user = await keyed.user();
    const { body, text } = await keyed.post({ jsonrpc: "2.0", method: "provider.get", id: 1 }, user.token);
    expect(body.result).toEqual({
      base_url: "https://server.example/v1",
      models: ["m1", "m2"],
      has_api_key: false,
      source: "server",
    });
    expect(text).not.toContain("canary");
    const { models } = await user.client.call("llm.models", {});
    expect(models.map(({ id, source, scripted }) => [id, source, scripted])).toEqual([
      ["demo", "demo", true],
      ["m1", "server", false],
      ["m2", "server", false],
    ]);
  });
});

describe("[US-3] billing.*", () => {
  it("the ledger's rows add up to the balance, page by page", async () => {
    const user = await server.user();
    const project_id = await server.project(user);
    const task_id = await server.dispatch(user, project_id);
    await user.client.call("agent.cancel", { task_id });
    const { entries: all } = await user.client.call("billing.entries", {});
    expect(all.map(({ kind }) => kind)).toEqual(["release", "hold", "grant"]);
    const balance = await user.client.call("billing.balance", {});
    const sum = (key: "balance_delta" | "held_delta") => all.reduce((total, entry) => total + entry[key], 0);
    expect({ balance_microcredits: sum("balance_delta"), held_microcredits: sum("held_delta") }).toEqual(
      balance,
    );
    const first = await user.client.call("billing.entries", { limit: 2 });
    const rest = await user.client.call("billing.entries", { limit: 2, cursor: first.next_cursor ?? "" });
    expect([...first.entries, ...rest.entries]).toEqual(all);
    expect(rest.next_cursor).toBeUndefined();
    const ofTask = await user.client.call("billing.entries", { task_id });
    expect(ofTask.entries).toHaveLength(2);
    expect((await ada.client.call("billing.entries", { task_id })).entries).toEqual([]);
  });
});
