import { setTimeout as sleep } from "node:timers/promises";
import { Kysely, PostgresDialect, sql } from "kysely";
import pg from "pg";
import type { Log } from "#platform/log.ts";
import { AppError } from "#schemas";
import { isConnectionFailure, nameDatabaseError } from "./errors.ts";
import { inTransaction } from "./in-transaction.ts";
import { NotificationClient } from "./listener.ts";
import { type ConnectionOptions, clientConfig, namedErrors } from "./pool.ts";
import type { Db, Schema } from "./schema.ts";

const PING_TIMEOUT_MS = 2000;
const CLOSE_TIMEOUT_MS = 5000;

export interface DatabaseOptions extends ConnectionOptions {
  /** Connections at most; one more listens. */
  readonly pool: number;
  readonly log: Log;
}

export interface Database extends AsyncDisposable {
  readonly db: Db;
  /**
   * Be called with every NOTIFY payload on a channel. `onReconnect`: payloads may have been missed, read the
   * rows again. Resolves once nothing sent from now on can be missed silently.
   */
  listen(
    channel: string,
    onNotify: (payload: string) => void,
    onReconnect?: () => void,
  ): Promise<() => Promise<void>>;
  /**
   * Run writes in one transaction. Run again (so `fn` must do nothing but SQL) when the server rolled it back
   * because of others, or the connection broke before COMMIT was sent; never when the outcome is unknown, and
   * never after waiting in vain for a connection.
   */
  transaction<T>(fn: (trx: Db) => Promise<T>): Promise<T>;
  /** Throws Unavailable when the database does not answer within 2 s. */
  ping(): Promise<void>;
  close(): Promise<void>;
}

/** Connect to a database that may still be starting. Throws Unavailable after `connectTimeoutMs`. */
export async function openDatabase(options: DatabaseOptions): Promise<Database> {
  const pool = new pg.Pool({ ...clientConfig(options), max: options.pool, idleTimeoutMillis: 30_000 });
  // Without `err`: what pg hangs on it is a whole connection, printed over a page.
  pool.on("error", ({ message }) =>
    options.log.warn({ reason: message }, "an idle database connection broke"),
  );
  // One in use that breaks between two statements would otherwise end the process; the next statement tells.
  pool.on("connect", (client) => client.on("error", () => undefined));
  const closed = whenClosed(pool);
  const db = new Kysely<Schema>({ dialect: new PostgresDialect({ pool: namedErrors(pool) }) });
  const listener = new NotificationClient(clientConfig(options), options.log);
  let closing: Promise<void> | undefined;
  const close = async () => {
    await listener.close();
    const done = db.destroy().then(closed);
    if ((await Promise.race([done, sleep(CLOSE_TIMEOUT_MS, "late", { ref: false })])) === "late") {
      options.log.warn("database connections were still in use when closing");
    }
  };
  const database: Database = {
    db,
    listen: (channel, onNotify, onReconnect) =>
      listener.listen(channel, onReconnect === undefined ? { onNotify } : { onNotify, onReconnect }),
    transaction: (fn) => inTransaction(db, fn),
    ping: () => ping(db),
    close: () => {
      closing ??= close();
      return closing;
    },
    [Symbol.asyncDispose]: () => database.close(),
  };
  try {
    await waitUntilUp(db, options.connectTimeoutMs);
  } catch (error) {
    await database.close();
    throw error;
  }
  return database;
}

/** Announce to every listener of every instance; inside a transaction, when and only when it commits. */
export async function notify(db: Db, channel: string, payload: string): Promise<void> {
  await sql`SELECT pg_notify(${channel}, ${payload})`.execute(db);
}

async function ping(db: Db): Promise<void> {
  const answered = sql`SELECT 1`.execute(db).then(() => true);
  answered.catch(() => undefined);
  if ((await Promise.race([answered, sleep(PING_TIMEOUT_MS, false, { ref: false })])) === false) {
    throw new AppError("Unavailable", "The database does not answer.", { retry_after_seconds: 2 });
  }
}

async function waitUntilUp(db: Db, timeoutMs: number): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  for (let delay = 50; ; delay = Math.min(delay * 2, 1000)) {
    try {
      await sql`SELECT 1`.execute(db);
      return;
    } catch (error) {
      if (Date.now() + delay > deadline || !isConnectionFailure(error)) throw startError(error);
      await sleep(delay);
    }
  }
}

function startError(error: unknown): AppError {
  const named = nameDatabaseError(error);
  const cause = named instanceof AppError ? (named.cause ?? named) : named;
  const reason = cause instanceof Error && cause.message !== "" ? cause.message : "no connection";
  return new AppError(
    "Unavailable",
    `The database cannot be opened: ${reason}`,
    { hint: "Check DATABASE_URL and that the PostgreSQL server runs." },
    error,
  );
}

/** The pool calls itself ended when it has begun to close its connections; this resolves when they are closed. */
function whenClosed(pool: pg.Pool): () => Promise<void> {
  let open = 0;
  let closed = () => {};
  pool.on("connect", () => {
    open += 1;
  });
  pool.on("remove", () => {
    open -= 1;
    if (open === 0) closed();
  });
  return () =>
    new Promise((resolve) => {
      closed = resolve;
      if (open === 0) resolve();
    });
}
