import { sql } from "kysely";
import { type Database, openDatabase } from "#database";
import { createLogger } from "#platform/log.ts";
import { testDatabase } from "#tests/support/database.ts";
import { SMALL } from "#tests/support/shared-server.ts";

/** When virtual time begins: the middle of a month, so that no sequence leaves it. */
const EPOCH = "2026-05-15T12:00:00Z";

/** PostgreSQL whose clock stands still until it is told to go on. */
export interface VirtualPostgres extends AsyncDisposable {
  readonly database: Database;
  /** Let it be `ms` after the beginning. */
  setClock(ms: number): Promise<void>;
  /** A moment as the database tells it, ms after the beginning. */
  readonly ms: (moment: Date | null) => number | null;
}

/**
 * The real database with every migration, in which the functions that tell the time are found in a schema that is
 * searched before PostgreSQL's own. What the product asks for is the same; only the answer is ours.
 */
export async function virtualPostgres(): Promise<VirtualPostgres> {
  const test = await testDatabase();
  const { db } = test.database;
  await sql`CREATE SCHEMA virtual`.execute(db);
  await sql`CREATE TABLE virtual.clock (moment timestamptz NOT NULL)`.execute(db);
  await sql`INSERT INTO virtual.clock VALUES (${EPOCH}::timestamptz)`.execute(db);
  for (const name of ["now", "clock_timestamp", "statement_timestamp"]) {
    await sql`CREATE FUNCTION ${sql.table(`virtual.${name}`)}() RETURNS timestamptz LANGUAGE sql STABLE AS
      'SELECT moment FROM virtual.clock'`.execute(db);
  }
  await setDefaults(test.database);
  const name = sql.table(new URL(test.url).pathname.slice(1));
  await sql`ALTER DATABASE ${name} SET search_path = virtual, public, pg_catalog`.execute(db);
  const log = createLogger({ level: "error", pretty: false });
  const database = await openDatabase({ url: test.url, ...SMALL, log });
  const epoch = Date.parse(EPOCH);
  return {
    database,
    async setClock(ms) {
      await sql`UPDATE virtual.clock SET moment = ${new Date(epoch + ms)}`.execute(database.db);
    },
    ms: (moment) => (moment === null ? null : moment.getTime() - epoch),
    async [Symbol.asyncDispose]() {
      await database.close();
      await test[Symbol.asyncDispose]();
    },
  };
}

/** Defaults of columns were bound to PostgreSQL's own clock when the tables were made. */
async function setDefaults({ db }: Database): Promise<void> {
  const { rows } = await sql<{ table_name: string; column_name: string; column_default: string }>`
    SELECT table_name, column_name, column_default FROM information_schema.columns
    WHERE table_schema = 'public' AND column_default LIKE '%now()%'`.execute(db);
  for (const { table_name, column_name, column_default } of rows) {
    const value = sql.raw(column_default.replaceAll(/\bnow\(\)/g, "virtual.now()"));
    await sql`ALTER TABLE ${sql.table(table_name)} ALTER COLUMN ${sql.ref(column_name)} SET DEFAULT ${value}`.execute(
      db,
    );
  }
}
