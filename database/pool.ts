import type { PostgresPool, PostgresPoolClient, PostgresQueryResult } from "kysely";
import pg from "pg";
import { AppError } from "#schemas";
import { isConnectionFailure, nameDatabaseError } from "./errors.ts";

const INT8 = 20;
const NUMERIC = 1700;
/** How long after the server's own statement limit the client gives up on a server that went silent. */
const READ_GRACE_MS = 5000;

export interface ConnectionOptions {
  readonly url: string;
  /** Time to connect or to wait for a free connection, ms. */
  readonly connectTimeoutMs: number;
  /** The longest one statement may run, ms. */
  readonly statementTimeoutMs: number;
}

/** A bigint or numeric as a number; one that a number cannot hold exactly is an error, never a rounded value. */
function parseNumber(text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) ? !Number.isSafeInteger(value) : !Number.isFinite(value)) {
    throw new AppError("InternalError", `The database gave a number out of range: ${text}`);
  }
  return value;
}

/** The type parsers of our connections; those of `pg` itself stay as they are for anybody else in the process. */
const types: pg.CustomTypesConfig = {
  getTypeParser(oid, format) {
    if (format !== "binary" && (oid === INT8 || oid === NUMERIC)) return parseNumber;
    return pg.types.getTypeParser(oid, format);
  },
};

/** What a pool and a single client have in common. */
export function clientConfig(options: ConnectionOptions): pg.ClientConfig {
  return {
    connectionString: options.url,
    connectionTimeoutMillis: options.connectTimeoutMs,
    statement_timeout: options.statementTimeoutMs,
    query_timeout: options.statementTimeoutMs + READ_GRACE_MS,
    application_name: "cyberdevstudio",
    keepAlive: true,
    types,
  };
}

/** A pool client as Kysely wants it, with named errors; a connection that failed is not given out again. */
class PooledClient implements PostgresPoolClient {
  readonly #client: pg.PoolClient;
  #broken = false;

  constructor(client: pg.PoolClient) {
    this.#client = client;
  }

  query<R>(text: string, values: readonly unknown[]): Promise<PostgresQueryResult<R>>;
  query(): never;
  async query(text?: string, values?: readonly unknown[]): Promise<unknown> {
    try {
      return await this.#client.query(text ?? "", values === undefined ? [] : [...values]);
    } catch (error) {
      if (isConnectionFailure(error)) this.#broken = true;
      throw nameDatabaseError(error);
    }
  }

  release(destroy?: boolean): void {
    this.#client.release(destroy === true || this.#broken);
  }
}

/** `pg`'s pool behind Kysely's interface. */
export function namedErrors(pool: pg.Pool): PostgresPool {
  const clients = new WeakMap<pg.PoolClient, PooledClient>();
  return {
    options: pool.options,
    end: () => pool.end(),
    async connect() {
      let client: pg.PoolClient;
      try {
        client = await pool.connect();
      } catch (error) {
        throw nameDatabaseError(error);
      }
      const known = clients.get(client) ?? new PooledClient(client);
      clients.set(client, known);
      return known;
    },
  };
}
