import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import type { Db } from "../schema.ts";
import { deleteProvider, getProvider, setProvider } from "./providers.ts";
import { createUser } from "./users.ts";

describe("providers", () => {
  let test: TestDatabase;
  let db: Db;
  let user_id: string;
  beforeAll(async () => {
    test = await testDatabase();
    db = test.database.db;
    const user = { username: "ada", password_hash: "x", role: "developer", initial_balance: 0 } as const;
    user_id = (await createUser(db, user)).id;
  });
  afterAll(() => test[Symbol.asyncDispose]());

  it("[MU-4] keeps the key at the same base URL and drops it at another", async () => {
    const key = Buffer.from("sealed");
    expect(await getProvider(db, user_id)).toBeUndefined();
    const set = (base_url: string, models: string[], api_key_encrypted?: Buffer) =>
      setProvider(db, { user_id, base_url, models, api_key_encrypted });
    const first = await set("https://one.example/v1/", ["a"], key);
    expect(first).toMatchObject({
      base_url: "https://one.example/v1",
      models: ["a"],
      api_key_encrypted: key,
    });
    expect(await set("https://one.example/v1", ["a", "b"])).toMatchObject({
      models: ["a", "b"],
      api_key_encrypted: key,
    });
    expect((await set("https://two.example/v1", [])).api_key_encrypted).toBeNull();
    expect((await set("https://one.example/v1", [])).api_key_encrypted).toBeNull();
    const other = Buffer.from("other");
    expect((await set("https://one.example/v1", [], other)).api_key_encrypted).toEqual(other);
    const moved = Buffer.from("moved");
    expect((await set("https://two.example/v1", [], moved)).api_key_encrypted).toEqual(moved);
    expect(await getProvider(db, user_id)).toMatchObject({ base_url: "https://two.example/v1" });
  });

  it("forgets a provider", async () => {
    await setProvider(db, { user_id, base_url: "https://one.example", models: [] });
    expect(await deleteProvider(db, user_id)).toBe(true);
    expect(await deleteProvider(db, user_id)).toBe(false);
    expect(await getProvider(db, user_id)).toBeUndefined();
  });
});
