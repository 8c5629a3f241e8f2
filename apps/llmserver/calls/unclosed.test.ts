import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createUser } from "#database/accounts/index.ts";
import { createLogger, newId } from "#platform";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { Charge } from "./charge.ts";
import { UnclosedCalls } from "./unclosed.ts";

const log = createLogger({ level: "silent", pretty: false });
const price = { inputPerMillion: 1_000_000, cachedPerMillion: 1_000_000, outputPerMillion: 1_000_000 };
let test: TestDatabase;
beforeAll(async () => {
  test = await testDatabase();
});
afterAll(() => test[Symbol.asyncDispose]());

/** As long as its table has another name, no call can be written. */
async function away<T>(act: () => Promise<T>): Promise<T> {
  await sql`ALTER TABLE llm_calls RENAME TO llm_calls_away`.execute(test.database.db);
  try {
    return await act();
  } finally {
    await sql`ALTER TABLE llm_calls_away RENAME TO llm_calls`.execute(test.database.db);
  }
}

async function opened() {
  const account = { username: newId("user"), password_hash: "-", role: "developer" } as const;
  const user = await createUser(test.database.db, { ...account, initial_balance: 1000 });
  const unclosed = new UnclosedCalls(log);
  const options = { db: test.database.db, log, unclosed, user_id: user.id, instance_id: "i", price };
  const open = () => Charge.open({ ...options, model: "m", inputTokens: 10, maxTokens: 100, choices: 1 });
  const account_ = () =>
    test.database.db
      .selectFrom("users")
      .select(["token_balance", "token_held"])
      .where("id", "=", user.id)
      .executeTakeFirstOrThrow();
  return { unclosed, open, account: account_ };
}

describe("[US-3] a call that cannot be closed while the database is away", () => {
  it("is charged as soon as it is there again, once", async () => {
    const { unclosed, open, account } = await opened();
    const charge = await open();
    expect(await account()).toMatchObject({ token_balance: 1000, token_held: 110 });
    const used = { input_tokens: 10, output_tokens: 5, cached_tokens: 0, counted_by: "provider" } as const;
    await away(() => charge.settle(used, "/v1/chat/completions"));
    expect(unclosed.size).toBe(1);
    expect(await account()).toMatchObject({ token_balance: 1000, token_held: 110 });
    await away(() => expect(unclosed.retry()).rejects.toThrow());
    await unclosed.retry();
    await unclosed.retry();
    expect(unclosed.size).toBe(0);
    expect(await account()).toMatchObject({ token_balance: 985, token_held: 0 });
    await unclosed.close();
  });

  it("gives its hold back when it used nothing, and one that was never held is forgotten", async () => {
    const { unclosed, open, account } = await opened();
    const charge = await open();
    await away(() => charge.release());
    await away(() => expect(open()).rejects.toThrow());
    expect(unclosed.size).toBe(2);
    await unclosed.close();
    expect(unclosed.size).toBe(0);
    expect(await account()).toMatchObject({ token_balance: 1000, token_held: 0 });
  });
});
