import { sql } from "kysely";
import { describe, expect, it } from "vitest";
import { openDatabase } from "#database";
import { createLogger } from "#platform/log.ts";
import { AppError } from "#schemas";
import { emptyDatabase, testDatabase } from "#tests/support/database.ts";
import { migrate } from "./index.ts";

const log = createLogger({ level: "silent", pretty: false });
const limits = { pool: 3, connectTimeoutMs: 15_000, statementTimeoutMs: 30_000, log };

describe("migrations", () => {
  it("are applied once, by one of four that start at the same time", async () => {
    await using empty = await emptyDatabase();
    const databases = await Promise.all(
      Array.from({ length: 4 }, () => openDatabase({ ...limits, url: empty.url })),
    );
    const applied = await Promise.all(databases.map(({ db }) => migrate(db)));
    const counts = applied.map((names) => names.length).sort((a, b) => b - a);
    expect(counts[0]).toBeGreaterThan(0);
    expect(counts.slice(1)).toEqual([0, 0, 0]);
    expect(await migrate(empty.database.db)).toEqual([]);
    await Promise.all(databases.map((database) => database.close()));
  });

  it("refuse a database of a newer version, and change nothing", async () => {
    await using test = await testDatabase();
    const { db } = test.database;
    await sql`INSERT INTO kysely_migration VALUES ('9999-from-the-future', '2030-01-01')`.execute(db);
    const error: unknown = await migrate(db).catch((reason: unknown) => reason);
    expect(error instanceof AppError && `${error.code} ${error.details.hint}`).toMatch(/Unavailable .*newer/);
  });

  it("[US-1] guard their own rules: balances, names, append-only rows", async () => {
    await using test = await testDatabase();
    const { db } = test.database;
    await sql`INSERT INTO users (id, username, password_hash, role) VALUES ('u', 'Ada', 'x', 'admin')`.execute(
      db,
    );
    const refused = async (statement: ReturnType<typeof sql>) =>
      await statement.execute(db).then(
        () => "accepted",
        (error: Error) => error.message,
      );
    expect(await refused(sql`UPDATE users SET token_balance = -1`)).toMatch(/check constraint/);
    expect(await refused(sql`UPDATE users SET token_held = 1`)).toMatch(/check constraint/);
    expect(
      await refused(
        sql`INSERT INTO users (id, username, password_hash, role) VALUES ('v', 'ADA', 'x', 'admin')`,
      ),
    ).toMatch(/users_username/);
    await sql`INSERT INTO ledger_entries (user_id, kind, balance_delta, held_delta, idempotency_key)
      VALUES ('u', 'grant', 1, 0, 'k')`.execute(db);
    expect(await refused(sql`UPDATE ledger_entries SET balance_delta = 2`)).toMatch(/append-only/);
  });
});
