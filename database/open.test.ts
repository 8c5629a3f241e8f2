import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";

describe("open", () => {
  let test: TestDatabase;
  beforeAll(async () => {
    test = await testDatabase();
  });
  afterAll(() => test[Symbol.asyncDispose]());

  it("gives bigint and numeric as numbers", async () => {
    const { rows } = await sql<{ a: number; b: number }>`SELECT 5000000000::bigint AS a, sum(x) AS b
      FROM (VALUES (1::bigint), (2::bigint)) v(x)`.execute(test.database.db);
    expect(rows).toEqual([{ a: 5_000_000_000, b: 3 }]);
  });
});
