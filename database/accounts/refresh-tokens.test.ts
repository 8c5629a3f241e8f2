import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import type { Db } from "../schema.ts";
import {
  deleteExpiredRefresh,
  insertRefreshToken,
  revokeAllRefresh,
  revokeFamily,
  rotateRefreshToken,
} from "./refresh-tokens.ts";
import { createUser, deleteUser, findUser } from "./users.ts";

const hash = () => randomBytes(32);
const inMs = (ms: number) => new Date(Date.now() + ms);

describe("refresh tokens", () => {
  let test: TestDatabase;
  let db: Db;
  let user_id: string;
  beforeAll(async () => {
    test = await testDatabase();
    db = test.database.db;
    user_id = await makeUser("ada");
  });
  afterAll(() => test[Symbol.asyncDispose]());

  const makeUser = async (username: string) =>
    (await createUser(db, { username, password_hash: "x", role: "developer", initial_balance: 0 })).id;
  const signIn = async (expires_at = inMs(60_000)) => {
    const token = hash();
    await insertRefreshToken(db, { hash: token, user_id, expires_at });
    return token;
  };
  const rotate = (from: Buffer, to = hash()) =>
    rotateRefreshToken(db, { hash: from, newHash: to, expires_at: inMs(60_000) });

  it("[US-2] exchanges a token for the next one", async () => {
    const [first, second] = [await signIn(), hash()];
    const done = await rotate(first, second);
    expect(done).toMatchObject({ user: { id: user_id, username: "ada" } });
    expect(await rotate(second)).toMatchObject({ user: { id: user_id } });
  });

  it("refuses unknown and expired ones", async () => {
    expect(await rotate(hash())).toBe("invalid");
    expect(await rotate(await signIn(inMs(-1000)))).toBe("invalid");
  });

  it("[US-2] revokes the whole family and every access token when one is used twice", async () => {
    const [stolen, second, third, elsewhere] = [await signIn(), hash(), hash(), await signIn()];
    await rotate(stolen, second);
    await rotate(second, third);
    const before = (await findUser(db, user_id))?.token_version ?? 0;
    expect(await rotate(stolen)).toBe("reused");
    expect((await findUser(db, user_id))?.token_version).toBe(before + 1);
    expect(await rotate(third)).toBe("invalid");
    expect(await rotate(stolen)).toBe("invalid");
    expect(await rotate(elsewhere)).toMatchObject({ user: { id: user_id } });
  });

  it("lets one of many simultaneous exchanges win and then trusts none of them", async () => {
    const token = await signIn();
    const next = Array.from({ length: 8 }, hash);
    const results = await Promise.all(next.map((to) => rotate(token, to)));
    expect(results.filter((result) => typeof result === "object")).toHaveLength(1);
    expect(results).toContain("reused");
    for (const to of next) expect(await rotate(to)).toBe("invalid");
  });

  it("signs out one family or all of them", async () => {
    const [one, two, three] = [await signIn(), await signIn(), await signIn()];
    const next = hash();
    await rotate(one, next);
    expect(await revokeFamily(db, one)).toBe(true);
    expect(await revokeFamily(db, one)).toBe(false);
    expect(await rotate(next)).toBe("invalid");
    expect(await rotate(two)).toMatchObject({ user: { id: user_id } });
    await revokeAllRefresh(db, user_id);
    expect(await rotate(three)).toBe("invalid");
  });

  it("forgets what has expired, and everything of a deleted user", async () => {
    await signIn(inMs(-1000));
    expect(await deleteExpiredRefresh(db)).toBeGreaterThanOrEqual(1);
    expect(await deleteExpiredRefresh(db)).toBe(0);
    const other = await makeUser("leaver");
    const token = hash();
    await insertRefreshToken(db, {
      hash: token,
      user_id: other,
      expires_at: inMs(60_000),
      family_id: "tok_f",
    });
    const [rotated] = await Promise.all([rotate(token), deleteUser(db, other)]);
    expect(rotated === "invalid" || typeof rotated === "object").toBe(true);
    expect(await rotate(token)).toBe("invalid");
  });
});
