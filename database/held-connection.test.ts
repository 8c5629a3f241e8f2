import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { HeldConnection } from "./held-connection.ts";
import type { Db } from "./schema.ts";

let test: TestDatabase;
beforeAll(async () => {
  test = await testDatabase({ pool: 2, connectTimeoutMs: 500 });
});
afterAll(() => test[Symbol.asyncDispose]());

async function backend(db: Db): Promise<number> {
  const { rows } = await sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`.execute(db);
  return rows[0]?.pid ?? 0;
}

describe("held connection", () => {
  it("is there while every other one is taken, and comes back to the pool", async () => {
    const { db } = test.database;
    const held = new HeldConnection(db);
    const pid = await held.use(backend);
    await db.connection().execute(async () => {
      await expect(backend(db)).rejects.toMatchObject({ code: "Unavailable" });
      expect(await held.use(backend)).toBe(pid);
    });
    held[Symbol.dispose]();
    const both = await Promise.all([backend(db), backend(db)]);
    expect(both).toContain(pid);
  });

  it("is another one after it broke", async () => {
    const { db } = test.database;
    using held = new HeldConnection(db);
    const pid = await held.use(backend);
    await sql`SELECT pg_terminate_backend(${pid})`.execute(db);
    await expect(held.use(backend)).rejects.toThrow();
    expect(await held.use(backend)).not.toBe(pid);
  });
});
