import { type Kysely, sql } from "kysely";
import { describe, expect, it } from "vitest";
import { auditLedger, openDatabase, projectBudget, userBudget } from "#database";
import { createLogger } from "#platform/log.ts";
import { AppError } from "#schemas";
import { emptyDatabase, testDatabase } from "#tests/support/database.ts";
import { up as core } from "./0001-core.ts";
import { up as blobCollection } from "./0002-blob-collection.ts";
import { up as queueFunctions } from "./0003-queue-functions.ts";
import { up as historySize } from "./0004-history-size.ts";
import { up as money } from "./0005-money.ts";
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

  it("[US-3] know what was spent in this month before budgets came", async () => {
    await using empty = await emptyDatabase();
    const { db } = empty.database;
    const untyped = db as unknown as Kysely<unknown>;
    for (const up of [core, blobCollection, queueFunctions, historySize]) await up(untyped);
    for (const statement of [
      `INSERT INTO users (id, username, password_hash, role, token_balance) VALUES ('u', 'ada', 'x', 'admin', 95)`,
      `INSERT INTO projects (id, owner_id, name) VALUES ('p', 'u', 'p'), ('q', 'u', 'q')`,
      `INSERT INTO tasks (id, user_id, project_id, agent, runner, model, prompt, max_attempts, state)
        VALUES ('t', 'u', 'p', 'a', 'r', 'm', 'x', 1, 'completed')`,
      `INSERT INTO llm_calls (id, user_id, task_id, model, instance_id, state, hold_microcredits)
        VALUES ('c1', 'u', 't', 'm', 'i', 'settled', 1), ('c2', 'u', NULL, 'm', 'i', 'settled', 1),
          ('c3', 'u', 't', 'm', 'i', 'settled', 1)`,
      `INSERT INTO tokens_used (call_id, user_id, model_id, endpoint, task_id, input_tokens, output_tokens,
          cost_microcredits, counted_by, created_at)
        VALUES ('c1', 'u', 'm', '/v1/x', 't', 1, 1, 2, 'provider', now()),
          ('c2', 'u', 'm', '/v1/x', NULL, 1, 1, 3, 'provider', now()),
          ('c3', 'u', 'm', '/v1/x', 't', 1, 1, 0, 'provider', now() - interval '32 days')`,
      `INSERT INTO ledger_entries (user_id, kind, balance_delta, held_delta, idempotency_key)
        VALUES ('u', 'grant', 100, 0, 'g'), ('u', 'settle', -2, 0, 'c1'), ('u', 'settle', -3, 0, 'c2')`,
    ]) {
      await sql.raw(statement).execute(db);
    }
    await money(untyped);
    expect(await auditLedger(db)).toEqual({ users_off: [] });
    expect(await userBudget(db, "u")).toMatchObject({ limit: null, spent: 5, held: 0 });
    expect(await projectBudget(db, "p")).toMatchObject({ limit: null, spent: 2, held: 0 });
    expect(await projectBudget(db, "q")).toMatchObject({ spent: 0 });
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
