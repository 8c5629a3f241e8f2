import { randomBytes } from "node:crypto";
import { type Database, type DatabaseOptions, openDatabase } from "#database";
import { createLogger } from "#platform/log.ts";
import {
  createDatabase,
  databaseUrl,
  removeDatabase,
  SMALL,
  sharedServer,
  TEMPLATE,
} from "./shared-server.ts";

export interface TestDatabase extends AsyncDisposable {
  readonly database: Database;
  /** For further connections to the same database. */
  readonly url: string;
}

/**
 * A database of its own with every migration applied, on the run's shared real PostgreSQL server. Dispose it:
 * `await using test = await testDatabase()`, or in afterAll.
 */
export function testDatabase(options: Partial<DatabaseOptions> = {}): Promise<TestDatabase> {
  return makeDatabase(TEMPLATE, options);
}

/** The same without a single table. */
export function emptyDatabase(options: Partial<DatabaseOptions> = {}): Promise<TestDatabase> {
  return makeDatabase("template0", options);
}

async function makeDatabase(template: string, options: Partial<DatabaseOptions>): Promise<TestDatabase> {
  const server = await sharedServer();
  const name = `test_${randomBytes(8).toString("hex")}`;
  await createDatabase(server, name, template);
  const url = databaseUrl(server, name);
  const log = createLogger({ level: "error", pretty: false });
  const database = await openDatabase({ url, ...SMALL, log, ...options });
  return {
    database,
    url,
    async [Symbol.asyncDispose]() {
      await database.close();
      await removeDatabase(server, name);
    },
  };
}
