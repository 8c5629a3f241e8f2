import { setTimeout as sleep } from "node:timers/promises";
import { SignJWT, UnsecuredJWT } from "jose";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { findUserByName } from "#database/accounts/users.ts";
import { TaskTokens } from "#platform";
import type { Session } from "#schemas";
import { type AuthServer, authServer } from "#tests/support/auth-server.ts";

let server: AuthServer;
beforeAll(async () => {
  server = await authServer();
});
afterAll(() => server[Symbol.asyncDispose]());

const wrong = { error: { code: "Unauthenticated", message: "The username or the password is wrong." } };
const refresh = (refresh_token: unknown) => server.call("POST", "/auth/refresh", { refresh_token });
const me = (bearer?: string) => server.call("GET", "/auth/me", undefined, bearer);

describe("registering", () => {
  it("[US-2] answers a session of a developer with the first balance, never an admin", async () => {
    const { status, body, headers } = await server.call("POST", "/auth/register", {
      username: "ada@example.org",
      password: "a long password",
    });
    expect(status).toBe(200);
    expect(headers.get("cache-control")).toBe("no-store");
    expect(body).toEqual({
      access_token: expect.any(String),
      refresh_token: expect.any(String),
      expires_in: server.config.auth.accessTokenSeconds,
      user: { id: expect.stringMatching(/^usr_/), username: "ada@example.org", role: "developer" },
    });
    const row = await findUserByName(server.test.database.db, "ADA@example.org");
    expect(row).toMatchObject({
      email: "ada@example.org",
      token_balance: server.config.billing.initialBalance,
    });
    expect(row?.password_hash).toMatch(/^\$argon2id\$/);
    expect((await me((body as unknown as Session).access_token)).body).toEqual({ user: body.user });
  });

  it("[GW-2] names what is wrong with the input and changes nothing", async () => {
    const bad: [unknown, string][] = [
      [undefined, "username"],
      [{}, "username"],
      [[], ""],
      [{ username: "bob" }, "password"],
      [{ username: "bob", password: "short" }, "password"],
      [{ username: "b", password: "a long password" }, "username"],
      [{ username: "a b", password: "a long password" }, "username"],
      [{ username: "bob\u0000", password: "a long password" }, "username"],
      [{ username: "-bob", password: "a long password" }, "username"],
      [{ username: "x".repeat(255), password: "a long password" }, "username"],
      [{ username: "bob", password: "x".repeat(1025) }, "password"],
      [{ username: 7, password: "a long password" }, "username"],
      [{ username: "bob", password: "a long password", role: "admin" }, ""],
    ];
    for (const [input, path] of bad) {
      const { status, body } = await server.call("POST", "/auth/register", input);
      expect([status, body.error?.code], JSON.stringify(input)).toEqual([400, "InvalidParams"]);
      expect(body.error?.issues).toContainEqual({ path, message: expect.any(String) });
    }
    expect(await findUserByName(server.test.database.db, "bob")).toBeUndefined();
  });

  it("takes a name once, whatever its case, also when many ask at once", async () => {
    const body = (username: string) => ({ username, password: "a long password" });
    const answers = await Promise.all(
      ["carl", "CARL", "Carl", "cArl"].map((name) => server.call("POST", "/auth/register", body(name))),
    );
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 409, 409, 409]);
    expect(answers.find(({ status }) => status === 409)?.body.error?.code).toBe("Conflict");
  });

  it("can be closed, and is limited per address", async () => {
    await using closed = await authServer({ CDS_ALLOW_REGISTRATION: "false" });
    const body = { username: "dora", password: "a long password" };
    expect(await closed.call("POST", "/auth/register", body)).toMatchObject({
      status: 403,
      body: { error: { code: "Forbidden", hint: "Ask an administrator for an account." } },
    });
    await using few = await authServer({ CDS_LOGINS_PER_MINUTE: "0.2" });
    await few.register("dora");
    await few.register("dirk");
    const refused = await few.call("POST", "/auth/register", {
      username: "dina",
      password: "a long password",
    });
    expect(refused).toMatchObject({ status: 429, body: { error: { code: "RateLimited" } } });
  });

  it("refuses bodies that are too large or broken", async () => {
    const huge = JSON.stringify({ username: "x", password: "y".repeat(70_000) });
    expect(await server.call("POST", "/auth/register", huge)).toMatchObject({
      status: 413,
      body: { error: { code: "PayloadTooLarge" } },
    });
    for (const broken of ['{"username":', Uint8Array.of(0x7b, 0xff, 0x7d)]) {
      const { status, body } = await server.call("POST", "/auth/login", broken);
      expect([status, body.error?.code]).toEqual([400, "ParseError"]);
    }
  });
});

describe("signing in", () => {
  it("[US-2] needs the right password; a wrong name and a wrong password are told alike", async () => {
    await server.register("erin");
    const good = await server.call("POST", "/auth/login", {
      username: " ERIN ",
      password: "password of erin",
    });
    expect(good).toMatchObject({ status: 200, body: { user: { username: "erin", role: "developer" } } });
    const bad = [
      { username: "erin", password: "password of Erin" },
      { username: "nobody", password: "password of erin" },
      { username: "erin\u0000", password: "password of erin" },
      { username: "", password: "" },
    ];
    for (const body of bad) {
      expect(await server.call("POST", "/auth/login", body)).toMatchObject({ status: 401, body: wrong });
    }
    expect((await server.call("POST", "/auth/login", { username: "erin" })).status).toBe(400);
  });

  it("[GW-2] limits attempts that fail, per name and per address, and not those that succeed", async () => {
    await using limited = await authServer({ CDS_LOGINS_PER_MINUTE: "5" });
    await limited.register("finn");
    const login = (username: string, password: string, address: string) =>
      limited.call("POST", "/auth/login", { username, password }, undefined, { "x-forwarded-for": address });
    for (let round = 0; round < 12; round++) {
      expect((await login("finn", "password of finn", "203.0.113.1")).status).toBe(200);
    }
    // One name from many addresses, all at once: no more than the allowance is tried.
    const guesses = Array.from({ length: 20 }, (_, index) =>
      login("FINN", `guess ${index}`, `198.51.100.${index}`),
    );
    const statuses = (await Promise.all(guesses)).map(({ status }) => status);
    expect(statuses.filter((status) => status === 401)).toHaveLength(5);
    expect(statuses.filter((status) => status === 429)).toHaveLength(15);
    const locked = await login("finn", "password of finn", "203.0.113.1");
    expect(locked.status).toBe(429);
    expect(Number(locked.headers.get("retry-after"))).toBeGreaterThan(0);
    // Many names from one address.
    const names = Array.from({ length: 9 }, (_, index) => login(`name${index}`, "guess", "192.0.2.1"));
    expect((await Promise.all(names)).filter(({ status }) => status === 401)).toHaveLength(5);
    expect((await login("gina", "guess", "192.0.2.2")).status).toBe(401);
  });

  it("renews a hash made with older parameters", async () => {
    const { argon2Sync } = await import("node:crypto");
    const salt = Buffer.alloc(16, 1);
    const made = {
      message: "an old password",
      nonce: salt,
      memory: 1024,
      passes: 2,
      parallelism: 1,
      tagLength: 32,
    };
    const text = (bytes: Buffer) => bytes.toString("base64").replaceAll("=", "");
    const old = `$argon2id$v=19$m=1024,t=2,p=1$${text(salt)}$${text(argon2Sync("argon2id", made))}`;
    const { db } = server.test.database;
    await db
      .insertInto("users")
      .values({ id: "usr_old", username: "olga", password_hash: old, role: "viewer" })
      .execute();
    for (let round = 0; round < 2; round++) {
      const body = { username: "olga", password: "an old password" };
      expect((await server.call("POST", "/auth/login", body)).status).toBe(200);
      expect((await findUserByName(db, "olga"))?.password_hash).toContain("m=19456,t=2,p=1");
    }
  });
});

describe("access tokens", () => {
  it("[US-2] are refused when missing, forged, unsigned, of a task or revoked", async () => {
    const { access_token, user } = await server.register("gil");
    const claims = { sub: user.id, username: "gil", role: "admin", ver: 0 };
    const key = server.secrets.key("access-tokens");
    const sign = (typ: string, signingKey: Buffer) =>
      new SignJWT(claims)
        .setProtectedHeader({ alg: "HS256", typ })
        .setIssuer("cyberdevstudio")
        .setAudience("cyberdevstudio")
        .setIssuedAt()
        .setExpirationTime("1h")
        .sign(signingKey);
    const tasks = await TaskTokens.open(server.secrets);
    const bad: Record<string, string | undefined> = {
      none: undefined,
      garbage: "abc",
      "API key nobody has": `cds_${"A".repeat(43)}`,
      "alg none": new UnsecuredJWT(claims).setExpirationTime("1h").encode(),
      "other key": await sign("at+jwt", Buffer.alloc(32, 1)),
      "other typ": await sign("JWT", key),
      task: await tasks.issue({ task_id: "tsk_1", user_id: user.id, attempt: 1, ttlSeconds: 60 }),
      altered: `${access_token.slice(0, -4)}AAAA`,
    };
    for (const [name, token] of Object.entries(bad)) {
      const { status, body, headers } = await me(token);
      expect([status, body.error?.code], name).toEqual([401, "Unauthenticated"]);
      expect(headers.get("www-authenticate")).toBe("Bearer");
    }
    // The role is the database's, whatever a token says.
    expect((await me(await sign("at+jwt", key))).body).toMatchObject({ user: { role: "developer" } });
  });

  it("[US-2] expire", async () => {
    await using short = await authServer({ CDS_ACCESS_TOKEN_SECONDS: "5" });
    const session = await short.register("hal");
    expect(session.expires_in).toBe(5);
    expect((await short.call("GET", "/auth/me", undefined, session.access_token)).status).toBe(200);
    await sleep(5100);
    const late = await short.call("GET", "/auth/me", undefined, session.access_token);
    expect(late).toMatchObject({ status: 401, body: { error: { message: "The token has expired." } } });
    const next = await short.call("POST", "/auth/refresh", { refresh_token: session.refresh_token });
    expect(next.status).toBe(200);
    expect((await short.call("GET", "/auth/me", undefined, next.body.access_token as string)).status).toBe(
      200,
    );
  });
});

describe("refreshing", () => {
  it("[US-2] gives a new pair each time; a spent token ends the whole family", async () => {
    const first = await server.register("ida");
    const second = (await refresh(first.refresh_token)).body as unknown as Session;
    const third = (await refresh(second.refresh_token)).body as unknown as Session;
    expect(new Set([first.refresh_token, second.refresh_token, third.refresh_token]).size).toBe(3);
    expect(third.user).toEqual(first.user);
    const reused = await refresh(first.refresh_token);
    expect(reused).toMatchObject({ status: 401, body: { error: { code: "Unauthenticated" } } });
    expect(reused.body.error?.hint).toMatch(/Sign in again/);
    expect(await refresh(third.refresh_token)).toMatchObject({
      status: 401,
      body: { error: { message: "The session has ended.", hint: "Sign in again." } },
    });
  });

  it("[US-2] of two at once with the same token exactly one wins", async () => {
    for (let round = 0; round < 5; round++) {
      const { refresh_token } = await server.register(`jo${round}`);
      const answers = await Promise.all([
        refresh(refresh_token),
        refresh(refresh_token),
        refresh(refresh_token),
      ]);
      expect(answers.map(({ status }) => status).sort()).toEqual([200, 401, 401]);
    }
  });

  it("leaves other sign-ins of the user alone", async () => {
    await server.register("kim");
    const login = async () =>
      (await server.call("POST", "/auth/login", { username: "kim", password: "password of kim" }))
        .body as unknown as Session;
    const [one, two] = [await login(), await login()];
    await refresh(one.refresh_token);
    expect((await refresh(one.refresh_token)).status).toBe(401);
    expect((await refresh(two.refresh_token)).status).toBe(200);
  });

  it("refuses what is no refresh token, or has expired", async () => {
    const { access_token, refresh_token, user } = await server.register("lea");
    for (const bad of ["x", access_token]) expect((await refresh(bad)).status).toBe(401);
    for (const bad of [undefined, "", 7, "x".repeat(513)]) expect((await refresh(bad)).status).toBe(400);
    const { db } = server.test.database;
    await db
      .updateTable("refresh_tokens")
      .set({ expires_at: new Date(0) })
      .where("user_id", "=", user.id)
      .execute();
    expect((await refresh(refresh_token)).status).toBe(401);
  });

  it("signing out ends the family and tells whether there was one", async () => {
    const first = await server.register("mia");
    const second = (await refresh(first.refresh_token)).body as unknown as Session;
    const logout = (refresh_token: string) => server.call("POST", "/auth/logout", { refresh_token });
    expect(await logout(second.refresh_token)).toMatchObject({ status: 200, body: { ended: true } });
    expect((await refresh(second.refresh_token)).status).toBe(401);
    expect(await logout("unknown")).toMatchObject({ status: 200, body: { ended: false } });
  });
});

describe("secrets", () => {
  it("[US-2] neither tokens, keys nor passwords are in the database or the log", async () => {
    const session = await server.register("nora", "CANARY-password");
    const { body } = await server.call("POST", "/auth/api-key/generate", undefined, session.access_token);
    await refresh(session.refresh_token);
    const { db } = server.test.database;
    const rows = [
      await db.selectFrom("users").selectAll().execute(),
      await db.selectFrom("refresh_tokens").selectAll().execute(),
    ];
    const kept = JSON.stringify(rows) + server.log.join("");
    const secrets = [session.access_token, session.refresh_token, "CANARY-password", body.api_key as string];
    for (const secret of secrets) expect(kept).not.toContain(secret);
  });
});
