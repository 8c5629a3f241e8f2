import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { openSecrets } from "#platform/secrets.ts";
import { AccessTokens, hashToken, newApiKey } from "#platform/tokens/index.ts";
import { AppError } from "#schemas";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import type { Db, UserRow } from "../schema.ts";
import { createAuthenticator } from "./authenticator.ts";
import { bumpTokenVersion, createUser, deleteUser, setApiKeyHash, setRole } from "./users.ts";

const REVOCATION_MS = 300;
vi.setConfig({ expect: { poll: { timeout: 30_000, interval: 200 } } });

describe("authenticator", () => {
  let test: TestDatabase;
  let db: Db;
  let dataDir: string;
  let accessTokens: AccessTokens;
  let shortLived: AccessTokens;
  let count = 0;
  beforeAll(async () => {
    test = await testDatabase();
    db = test.database.db;
    dataDir = await mkdtemp(join(tmpdir(), "cds-auth-"));
    const secrets = await openSecrets({ dataDir });
    accessTokens = await AccessTokens.open(secrets, 60);
    shortLived = await AccessTokens.open(secrets, 3);
  });
  afterAll(async () => {
    await test[Symbol.asyncDispose]();
    await rm(dataDir, { recursive: true });
  });

  const makeUser = () => {
    count += 1;
    const user = { password_hash: "x", role: "developer", initial_balance: 0 } as const;
    return createUser(db, { ...user, username: `user${count}` });
  };
  const makeKey = async (user: UserRow) => {
    const key = newApiKey();
    await setApiKeyHash(db, user.id, hashToken(key));
    return key;
  };
  const tokenOf = async (user: UserRow) => (await accessTokens.issue(user)).token;
  const make = () =>
    createAuthenticator({ database: test.database, accessTokens, revocationMs: REVOCATION_MS });
  const refusal = (error: unknown) =>
    error instanceof AppError ? `${error.code}: ${error.message}` : String(error);

  it("[GW-2] knows a caller by access token and by API key", async () => {
    const [auth, user] = [make(), await makeUser()];
    const caller = { user_id: user.id, username: user.username, role: "developer" };
    const [token, key] = [await tokenOf(user), await makeKey(user)];
    for (let round = 0; round < 2; round += 1) {
      expect(await auth.authenticate(token)).toEqual({ ...caller, via: "jwt" });
      expect(await auth.authenticate(key)).toEqual({ ...caller, via: "api_key" });
    }
  });

  it("refuses what proves nobody", async () => {
    const auth = make();
    for (const bearer of [undefined, "", "x", "cds_wrong", "a.b.c", "x".repeat(5000)]) {
      expect(await auth.authenticate(bearer).catch(refusal)).toMatch(/^Unauthenticated: /);
    }
  });

  it("ends an access token with its expiry, also a remembered one", async () => {
    const [auth, user] = [make(), await makeUser()];
    const { token } = await shortLived.issue(user);
    expect(await auth.authenticate(token)).toMatchObject({ user_id: user.id });
    await expect
      .poll(() => auth.authenticate(token).catch(refusal))
      .toBe("Unauthenticated: The token has expired.");
  });

  it("notices within its time what another process revoked, changed or deleted", async () => {
    const auth = make();
    const [bumped, keyless, deleted, promoted] = await Promise.all([
      makeUser(),
      makeUser(),
      makeUser(),
      makeUser(),
    ]);
    const bearers = [
      await tokenOf(bumped),
      await makeKey(keyless),
      await tokenOf(deleted),
      await tokenOf(promoted),
    ] as const;
    for (const bearer of bearers) await auth.authenticate(bearer);
    await bumpTokenVersion(db, bumped.id);
    await setApiKeyHash(db, keyless.id, null);
    await deleteUser(db, deleted.id);
    await setRole(db, promoted.id, "viewer");
    await sleep(REVOCATION_MS + 50);
    expect(await auth.authenticate(bearers[0]).catch(refusal)).toMatch(/token was revoked/);
    expect(await auth.authenticate(bearers[1]).catch(refusal)).toMatch(/API key was revoked/);
    expect(await auth.authenticate(bearers[2]).catch(refusal)).toMatch(/does not exist any more/);
    expect(await auth.authenticate(bearers[3])).toMatchObject({ role: "viewer" });
    expect(await auth.authenticate(bearers[1]).catch(refusal)).toMatch(/API key is not valid/);
  });

  it("notices at once what this process was told of, and takes a new key at once", async () => {
    const auth = createAuthenticator({ database: test.database, accessTokens });
    const user = await makeUser();
    const [token, oldKey] = [await tokenOf(user), await makeKey(user)];
    await auth.authenticate(token);
    await auth.authenticate(oldKey);
    const newKey = await makeKey(user);
    expect(await auth.authenticate(newKey)).toMatchObject({ user_id: user.id });
    expect(await auth.authenticate(oldKey).catch(refusal)).toMatch(/revoked/);
    await bumpTokenVersion(db, user.id);
    auth.invalidate(user.id);
    expect(await auth.authenticate(token).catch(refusal)).toMatch(/revoked/);
  });

  it("asks the database once for many requests at the same time, and not again while it knows", async () => {
    let asked = 0;
    const counting = db.withPlugin({
      transformQuery: ({ node }) => {
        asked += 1;
        return node;
      },
      transformResult: async ({ result }) => result,
    });
    const auth = createAuthenticator({ database: { db: counting }, accessTokens });
    const user = await makeUser();
    const token = await tokenOf(user);
    await Promise.all(Array.from({ length: 50 }, () => auth.authenticate(token)));
    await auth.authenticate(token);
    expect(asked).toBe(1);
  });

  it("passes on that the database is away, and recovers with it", async () => {
    const user = await makeUser();
    const [token, key] = [await tokenOf(user), await makeKey(user)];
    const other = await testDatabase();
    await other[Symbol.asyncDispose]();
    let current: Db = other.database.db;
    const auth = createAuthenticator({
      accessTokens,
      database: {
        get db() {
          return current;
        },
      },
    });
    for (const bearer of [token, key]) {
      const failed = await auth.authenticate(bearer).catch((error: unknown) => error);
      expect(refusal(failed)).not.toMatch(/^Unauthenticated/);
    }
    current = db;
    for (const bearer of [token, key])
      expect(await auth.authenticate(bearer)).toMatchObject({ user_id: user.id });
  });
});
