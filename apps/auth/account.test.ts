import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { UserRow } from "#database";
import { type AuthServer, authServer } from "#tests/support/auth-server.ts";

let server: AuthServer;
beforeAll(async () => {
  server = await authServer();
});
afterAll(() => server[Symbol.asyncDispose]());

const me = (bearer: string) => server.call("GET", "/auth/me", undefined, bearer);

describe("API keys", () => {
  it("[US-2] are shown once, replace the one before, are revoked at once", async () => {
    const { access_token, user } = await server.register("ada");
    const generate = async (bearer: string) => {
      const { status, body } = await server.call("POST", "/auth/api-key/generate", undefined, bearer);
      expect(status).toBe(200);
      expect(Object.keys(body)).toEqual(["api_key"]);
      return body.api_key as string;
    };
    const first = await generate(access_token);
    expect(first).toMatch(/^cds_[\w-]{43}$/);
    expect((await me(first)).body).toEqual({ user });
    const second = await generate(first);
    expect((await me(first)).status).toBe(401);
    expect((await me(second)).status).toBe(200);
    const revoke = () => server.call("DELETE", "/auth/api-key/revoke", undefined, access_token);
    expect(await revoke()).toMatchObject({ status: 200, body: { revoked: true } });
    expect((await me(second)).status).toBe(401);
    expect(await revoke()).toMatchObject({ status: 200, body: { revoked: false } });
    expect((await me(access_token)).status).toBe(200);
  });

  it("need somebody signed in", async () => {
    for (const [method, path] of [
      ["POST", "/auth/api-key/generate"],
      ["DELETE", "/auth/api-key/revoke"],
      ["GET", "/auth/me"],
      ["POST", "/auth/password"],
    ] as const) {
      expect((await server.call(method, path)).status).toBe(401);
    }
  });
});

describe("password", () => {
  const change = (bearer: string, old_password: string, new_password: string) =>
    server.call("POST", "/auth/password", { old_password, new_password }, bearer);

  it("[US-2] is changed by who knows the old one, which ends every other session", async () => {
    const elsewhere = await server.register("bob");
    const here = await server.call("POST", "/auth/login", { username: "bob", password: "password of bob" });
    const bearer = here.body.access_token as string;
    const changed = await change(bearer, "password of bob", "a better password");
    expect(changed).toMatchObject({ status: 200, body: { user: { username: "bob" } } });
    for (const token of [elsewhere.access_token, bearer]) expect((await me(token)).status).toBe(401);
    for (const token of [elsewhere.refresh_token, here.body.refresh_token]) {
      expect((await server.call("POST", "/auth/refresh", { refresh_token: token })).status).toBe(401);
    }
    expect((await me(changed.body.access_token as string)).status).toBe(200);
    const refreshed = await server.call("POST", "/auth/refresh", {
      refresh_token: changed.body.refresh_token,
    });
    expect(refreshed.status).toBe(200);
    const login = (password: string) => server.call("POST", "/auth/login", { username: "bob", password });
    expect((await login("password of bob")).status).toBe(401);
    expect((await login("a better password")).status).toBe(200);
  });

  it("stays when the old one is wrong or the new one too short", async () => {
    const { access_token } = await server.register("cleo");
    expect((await change(access_token, "wrong", "a better password")).status).toBe(401);
    const short = await change(access_token, "password of cleo", "short");
    expect(short).toMatchObject({ status: 400, body: { error: { issues: [{ path: "new_password" }] } } });
    expect((await me(access_token)).status).toBe(200);
  });

  it("of an account that was just deleted cannot be changed", async () => {
    const { user } = await server.register("dan");
    const { db } = server.test.database;
    await db.deleteFrom("users").where("id", "=", user.id).execute();
    const { sessions } = server.deps;
    const passwords = { old_password: "password of dan", new_password: "a better password" };
    const gone = { id: user.id, username: "dan", role: "developer", token_version: 0 } as UserRow;
    await expect(sessions.issue(gone)).rejects.toMatchObject({ code: "Unauthenticated" });
    await expect(sessions.changePassword(user.id, passwords, "::1")).rejects.toMatchObject({
      code: "Unauthenticated",
    });
  });

  it("revoking the key of an account that was just deleted is refused", async () => {
    const { access_token, user } = await server.register("eve");
    expect((await me(access_token)).status).toBe(200);
    const { db } = server.test.database;
    await db.deleteFrom("users").where("id", "=", user.id).execute();
    const { body } = await server.call("DELETE", "/auth/api-key/revoke", undefined, access_token);
    expect(body).toEqual({ revoked: false });
    expect((await me(access_token)).status).toBe(401);
  });
});
