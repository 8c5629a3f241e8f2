import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestStudio, type TestStudio } from "../support/studio.ts";

/** Ways in that must be as narrow as their neighbours: every route to the same thing has the same lock. */
describe("doors", () => {
  let studio: TestStudio;
  beforeAll(async () => {
    studio = await startTestStudio({ CDS_LOGINS_PER_MINUTE: "1", CDS_PROVIDER_ALLOW_PRIVATE_HOSTS: "true" });
  });
  afterAll(() => studio?.[Symbol.asyncDispose]());

  const send = async (method: string, path: string, body: string, token?: string) => {
    const headers = {
      "content-type": "application/json",
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    };
    const answer = await fetch(studio.url + path, { method, headers, body });
    return { status: answer.status, text: await answer.text() };
  };

  it("a viewer sets no provider, neither by provider.set nor as PocketBase would", async () => {
    const password = "a viewer's password";
    const made = await send(
      "POST",
      "/admin/users",
      JSON.stringify({ username: "viewer", password, role: "viewer" }),
      studio.admin.session.access_token,
    );
    const { id } = JSON.parse(made.text) as { id: string };
    const login = await send("POST", "/auth/login", JSON.stringify({ username: "viewer", password }));
    const { access_token } = JSON.parse(login.text) as { access_token: string };
    const update = await send(
      "PATCH",
      `/api/collections/users/records/${id}`,
      JSON.stringify({ api_key: "sk-x" }),
      access_token,
    );
    expect(update.status).toBe(403);
    const params = { base_url: "http://127.0.0.1:9/v1", api_key: "sk-x", models: [] };
    const rpc = { jsonrpc: "2.0", id: 1, method: "provider.set", params };
    expect((await send("POST", "/rpc", JSON.stringify(rpc), access_token)).status).toBe(403);
  });

  it("registrations of one address are counted together, whichever route they come by", async () => {
    const password = "long enough";
    const register = (index: number) =>
      index % 2 === 0
        ? send("POST", "/auth/register", JSON.stringify({ username: `anna${index}`, password }))
        : send(
            "POST",
            "/api/collections/users/records",
            JSON.stringify({ username: `anna${index}`, password, passwordConfirm: password }),
          );
    const statuses: number[] = [];
    for (let index = 0; index < 12; index += 1) statuses.push((await register(index)).status);
    expect(statuses.filter((status) => status === 200)).toHaveLength(10);
    expect(statuses.slice(-2)).toEqual([429, 429]);
  });

  it("who is not known sends no large body to be parsed", async () => {
    const large = JSON.stringify({ username: "x".repeat(100_000), password: "y" });
    for (const path of ["/auth/login", "/auth/register", "/api/collections/users/auth-with-password"]) {
      expect((await send("POST", path, large)).status).toBe(413);
    }
    // Not even read: it is no JSON, and that is not what the answer is about.
    expect((await send("POST", "/v1/chat/completions", "[".repeat(1_000_000))).status).toBe(401);
  });
});
