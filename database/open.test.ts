import { connect, createServer, type Server, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { sql } from "kysely";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { createLogger } from "#platform/log.ts";
import { AppError } from "#schemas";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { isForeignKeyViolation, isUniqueViolation } from "./errors.ts";
import { type Database, notify, openDatabase } from "./open.ts";

vi.setConfig({ expect: { poll: { timeout: 30_000, interval: 10 } } });
const log = createLogger({ level: "silent", pretty: false });
const code = (error: unknown) => (error instanceof AppError ? error.code : `raw ${String(error)}`);

/** A way to the server that can be cut off, silently or with a bang. */
class Wire {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #silent = false;

  constructor(target: string) {
    this.#server = createServer((inward) => {
      const outward = connect(target);
      for (const [from, to] of [
        [inward, outward],
        [outward, inward],
      ] as const) {
        this.#sockets.add(from);
        from.on("data", (chunk) => this.#silent || to.write(chunk));
        from.on("close", () => to.destroy());
        from.on("error", () => to.destroy());
      }
    });
  }

  async open(port = 0): Promise<number> {
    await new Promise<void>((done) => this.#server.listen(port, "127.0.0.1", done));
    const address = this.#server.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  }

  silence(silent: boolean): void {
    this.#silent = silent;
  }

  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#sockets.clear();
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise((done) => this.#server.close(done));
  }
}

describe("open", () => {
  let test: TestDatabase;
  let database: Database;
  beforeAll(async () => {
    test = await testDatabase();
    database = test.database;
    await sql`CREATE TABLE things (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0)`.execute(
      database.db,
    );
  });
  afterAll(() => test[Symbol.asyncDispose]());

  /** The address through a wire, as TCP. */
  const through = async (wire: Wire, port = 0) => {
    const url = new URL(test.url);
    url.port = String(await wire.open(port));
    url.searchParams.delete("host");
    return url.href;
  };
  const makeWire = () => {
    const url = new URL(test.url);
    return new Wire(`${url.searchParams.get("host")}/.s.PGSQL.${url.port}`);
  };
  const small = { pool: 2, connectTimeoutMs: 2000, statementTimeoutMs: 2000, log };
  /** Wait until the server works on `statement`. */
  const working = (statement: string) =>
    expect
      .poll(async () => {
        const { rows } = await sql<{ n: number }>`SELECT count(*) AS n FROM pg_stat_activity
          WHERE state = 'active' AND query = ${statement}`.execute(database.db);
        return rows[0]?.n;
      })
      .toBe(1);

  it("gives bigint and numeric as numbers, and refuses those a number cannot hold", async () => {
    const { rows } =
      await sql`SELECT 5000000000::bigint AS a, sum(x) AS b, 1.5::numeric AS c, NULL::bigint AS d
      FROM (VALUES (1::bigint), (2::bigint)) v(x)`.execute(database.db);
    expect(rows).toEqual([{ a: 5_000_000_000, b: 3, c: 1.5, d: null }]);
    const tooLarge = sql`SELECT 9007199254740993::bigint AS a`.execute(database.db);
    await expect(tooLarge).rejects.toThrow(/out of range/);
    expect(await sql`SELECT 1 AS a`.execute(database.db)).toMatchObject({ rows: [{ a: 1 }] });
  });

  it("commits what returns and rolls back what throws", async () => {
    await database.transaction((trx) => sql`INSERT INTO things VALUES (1)`.execute(trx));
    const failed = database.transaction(async (trx) => {
      await sql`INSERT INTO things VALUES (2)`.execute(trx);
      throw new AppError("Conflict", "no");
    });
    await expect(failed).rejects.toThrow("no");
    const { rows } = await sql`SELECT id FROM things`.execute(database.db);
    expect(rows).toEqual([{ id: 1 }]);
  });

  it("tells violated constraints apart", async () => {
    const failure = (statement: ReturnType<typeof sql>) =>
      statement.execute(database.db).then(
        () => undefined,
        (error: unknown) => error,
      );
    const unique = await failure(sql`INSERT INTO things VALUES (1)`);
    expect(isUniqueViolation(unique)).toBe(true);
    expect(isUniqueViolation(unique, "things_pkey")).toBe(true);
    expect(isUniqueViolation(unique, "other")).toBe(false);
    const foreign = await failure(sql`INSERT INTO refresh_tokens VALUES ('x', 'f', 'nobody', now(), now())`);
    expect(isForeignKeyViolation(foreign)).toBe(true);
    expect(isForeignKeyViolation(foreign, "other")).toBe(false);
    for (const other of [undefined, null, "text", {}, { code: 5 }])
      expect(isUniqueViolation(other)).toBe(false);
  });

  it("runs a transaction again that lost a deadlock, until everybody is through", async () => {
    await sql`INSERT INTO things VALUES (10), (11)`.execute(database.db);
    let runs = 0;
    const bothHaveOne = Promise.withResolvers<void>();
    const add = (first: number, second: number) =>
      database.transaction(async (trx) => {
        await sql`UPDATE things SET n = n + 1 WHERE id = ${first}`.execute(trx);
        runs += 1;
        if (runs === 2) bothHaveOne.resolve();
        await bothHaveOne.promise;
        await sql`UPDATE things SET n = n + 1 WHERE id = ${second}`.execute(trx);
      });
    await Promise.all([add(10, 11), add(11, 10)]);
    expect(runs).toBeGreaterThan(2);
    const { rows } = await sql`SELECT n FROM things WHERE id IN (10, 11)`.execute(database.db);
    expect(rows).toEqual([{ n: 2 }, { n: 2 }]);
  });

  it("[DB-1] ends a statement after its time and goes on with the connection", async () => {
    await using limited = await openDatabase({ ...small, pool: 1, url: test.url });
    const connection = async () =>
      (await sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`.execute(limited.db)).rows;
    const before = await connection();
    expect(await sql`SELECT pg_sleep(3600)`.execute(limited.db).catch(code)).toBe("Timeout");
    // The same one, so the statement has ended on the server as well.
    expect(await connection()).toEqual(before);
  });

  it("[DB-2] makes a pool without a free connection an error, without trying again", async () => {
    await using limited = await openDatabase({ ...small, statementTimeoutMs: 20_000, url: test.url });
    let runs = 0;
    let holding = 0;
    const { promise: refused, resolve: letGo } = Promise.withResolvers<void>();
    const hold = () =>
      limited.db.transaction().execute(async (trx) => {
        await sql`SELECT 1`.execute(trx);
        holding += 1;
        await refused;
      });
    const holders = [hold(), hold()];
    await expect.poll(() => holding).toBe(2);
    const late = limited.transaction(async () => {
      runs += 1;
    });
    expect(await late.catch(code)).toBe("Unavailable");
    expect(runs).toBe(0);
    letGo();
    await Promise.all(holders);
    await limited.ping();
  });

  it("[DB-2] writes again when the connection breaks before COMMIT, and never reads again by itself", async () => {
    const wire = makeWire();
    await using database_ = await openDatabase({ ...small, url: await through(wire) });
    let runs = 0;
    await database_.transaction(async (trx) => {
      runs += 1;
      await sql`INSERT INTO things VALUES (${20 + runs})`.execute(trx);
      if (runs === 1) wire.cut();
      await sql`SELECT 1`.execute(trx);
    });
    expect(runs).toBe(2);
    const { rows } = await sql`SELECT id FROM things WHERE id > 20 AND id < 30`.execute(database.db);
    expect(rows).toEqual([{ id: 22 }]);
    const reading = sql`SELECT pg_sleep(1.9)`.execute(database_.db).catch(code);
    await working("SELECT pg_sleep(1.9)");
    wire.cut();
    expect(await reading).toBe("Unavailable");
    await database_.ping();
    await wire.close();
    expect(await database_.ping().catch(code)).toBe("Unavailable");
    expect(await database_.transaction(async () => 1).catch(code)).toBe("Unavailable");
  });

  it("does not run a transaction again whose COMMIT went unanswered", async () => {
    const wire = makeWire();
    await using database_ = await openDatabase({ ...small, url: await through(wire) });
    let runs = 0;
    const failed = database_.transaction(async (trx) => {
      runs += 1;
      await sql`INSERT INTO things VALUES (30)`.execute(trx);
      setTimeout(() => wire.cut(), 0);
      wire.silence(true);
    });
    expect(await failed.catch(code)).toBe("Unavailable");
    expect(runs).toBe(1);
    await wire.close();
  });

  it("answers a ping within its time also when the server went silent", async () => {
    const wire = makeWire();
    const database_ = await openDatabase({ ...small, url: await through(wire) });
    wire.silence(true);
    expect(await database_.ping().catch(code)).toBe("Unavailable");
    // Only now: it was an answer while nothing came over the wire, nor its end.
    wire.cut();
    await database_.close();
    await wire.close();
  });

  it("waits for a server that is starting, and says what is wrong with one that never comes", async () => {
    const wire = makeWire();
    const port = await wire.open();
    await wire.close();
    const url = new URL(test.url);
    url.searchParams.delete("host");
    url.port = String(port);
    const failed = await openDatabase({ ...small, connectTimeoutMs: 300, url: url.href }).catch(
      (error: unknown) => error,
    );
    expect(failed instanceof AppError && `${failed.message} ${failed.details.hint}`).toMatch(
      /ECONNREFUSED.*DATABASE_URL/,
    );
    const later = makeWire();
    const opening = openDatabase({ ...small, connectTimeoutMs: 10_000, url: url.href });
    await sleep(200);
    await later.open(port);
    await (await opening).close();
    await later.close();
    url.searchParams.set("host", new URL(test.url).searchParams.get("host") ?? "");
    url.port = new URL(test.url).port;
    url.password = "wrong";
    const refused = openDatabase({ ...small, url: url.href });
    await expect(refused).rejects.toThrow(/password authentication failed/);
  });

  it("closes while a query runs, in bounded time", async () => {
    const database_ = await openDatabase({ ...small, statementTimeoutMs: 20_000, url: test.url });
    const running = sql`SELECT pg_sleep(1)`.execute(database_.db);
    await working("SELECT pg_sleep(1)");
    await Promise.all([database_.close(), database_.close(), running]);
  });
});

describe("listen", () => {
  let test: TestDatabase;
  beforeAll(async () => {
    test = await testDatabase({ log });
  });
  afterAll(() => test[Symbol.asyncDispose]());
  const until = async (condition: () => boolean) => {
    await expect.poll(condition).toBe(true);
  };

  it("delivers what is announced, when and only when it commits, to every listener of the channel", async () => {
    const { database } = test;
    const heard: string[][] = [[], [], []];
    const endFirst = await database.listen("cds_one", (payload) => heard[0]?.push(payload));
    await database.listen("cds_one", () => {
      throw new Error("a listener that fails hurts no other");
    });
    const endSecond = await database.listen("cds_one", (payload) => heard[1]?.push(payload));
    await database.listen("cds_two", (payload) => heard[2]?.push(payload));
    await database.transaction(async (trx) => notify(trx, "cds_one", "a"));
    await database
      .transaction(async (trx) => {
        await notify(trx, "cds_one", "never");
        throw new Error("rolled back");
      })
      .catch(() => undefined);
    await notify(database.db, "cds_two", "b");
    await until(() => heard[2]?.length === 1);
    expect(heard).toEqual([["a"], ["a"], ["b"]]);
    await endFirst();
    await endFirst();
    await notify(database.db, "cds_one", "c");
    await until(() => heard[1]?.length === 2);
    expect(heard[0]).toEqual(["a"]);
    await endSecond();
    await expect(database.listen("no; channel", () => {})).rejects.toThrow(RangeError);
  });

  it("comes back after its connection was cut, and says that something may be missing", async () => {
    const { database } = test;
    const heard: string[] = [];
    let reconnects = 0;
    const onReconnect = () => {
      reconnects += 1;
    };
    await database.listen("cds_cut", (payload) => heard.push(payload), onReconnect);
    const end = await database.listen("cds_gone", () => {}, onReconnect);
    await end();
    const admin = new pg.Client({ connectionString: test.url });
    await admin.connect();
    for (let round = 1; round <= 3; round += 1) {
      await admin.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'cyberdevstudio listen'`);
      await until(() => reconnects === round);
      await notify(database.db, "cds_cut", String(round));
      await until(() => heard.length === round);
    }
    expect(heard).toEqual(["1", "2", "3"]);
    await admin.end();
  });

  it("a new channel can be listened to while the connection is away", async () => {
    const { database } = test;
    await database.listen("cds_first", () => {});
    const heard: string[] = [];
    await sql`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE datname = current_database() AND application_name = 'cyberdevstudio listen'`.execute(database.db);
    await Promise.all(
      ["cds_a", "cds_b"].map((channel) => database.listen(channel, (payload) => heard.push(payload))),
    );
    await sleep(300);
    for (const channel of ["cds_a", "cds_b"]) await notify(database.db, channel, channel);
    await until(() => heard.length === 2);
  });

  it("keeps trying while the database is away and stops trying when closed", async () => {
    const own = await testDatabase({ log });
    await own.database.listen("cds_away", () => {});
    const admin = new pg.Client({ connectionString: test.url });
    await admin.connect();
    const name = new URL(own.url).pathname.slice(1);
    await admin.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
    await admin.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${name}'`);
    await sleep(500);
    // It settles though the database is still away.
    await own[Symbol.asyncDispose]();
    await admin.end();
  });
});
