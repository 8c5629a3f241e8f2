import { randomBytes } from "node:crypto";
import { chmod, lchown, mkdir, readFile, realpath, rename, stat, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import type { Identity } from "#platform/host/enterable.ts";
import { lockForProcess, type ProcessLock } from "#platform/host/process-lock.ts";
import type { Log } from "#platform/log.ts";
import { AppError } from "#schemas";
import { isConnectionFailure } from "../errors.ts";
import { type Binaries, locateBinaries } from "./binaries.ts";
import { ensureCluster, SUPERUSER } from "./cluster.ts";
import { assertEnterable, serverIdentity } from "./identity.ts";
import {
  findPostmaster,
  freePort,
  gone,
  launch,
  type Postmaster,
  removeStalePid,
  runsProgram,
  stopPostmaster,
} from "./postmaster.ts";
import { ServerLog } from "./server-log.ts";
import { SETTINGS, VOLATILE_SETTINGS } from "./settings.ts";

const DATABASE = "cyberdevstudio";
/** Recovery after a crash replays up to max_wal_size: seconds, on a slow disk minutes. */
const READY_TIMEOUT_MS = 300_000;
const START_ATTEMPTS = 5;
const STOP_FAST_MS = 15_000;
const STOP_IMMEDIATE_MS = 5000;
/** A unix socket's path may have 107 bytes; PostgreSQL adds `/.s.PGSQL.<port>`. */
const LONGEST_SOCKET_DIR = 107 - "/.s.PGSQL.65535".length;

export interface EmbeddedOptions {
  /** Everything lies below it: postgres/, postgres.log, postgres.password, postgres-socket/, runtime/. */
  readonly dataDir: string;
  readonly log: Log;
  /** Whom the server runs as when we are root; else chosen (see serverIdentity). */
  readonly identity?: Identity;
  /** True for tests: nothing is forced to disk. */
  readonly volatile?: boolean;
}

export interface EmbeddedPostgres extends AsyncDisposable {
  /** Over the unix socket where its path is short enough, else loopback TCP. */
  readonly url: string;
  readonly tcpUrl: string;
  readonly pid: number;
  /** Whether the server was already running, left behind by a studio that was killed. */
  readonly adopted: boolean;
  /** Stop the server in order; the data is on disk when it resolves. */
  stop(): Promise<void>;
}

interface Place {
  readonly dataDir: string;
  readonly pgdata: string;
  readonly socketDir: string | undefined;
  readonly identity: Identity | undefined;
  readonly binaries: Binaries;
  readonly password: string;
  readonly serverLog: ServerLog;
  readonly log: Log;
  readonly volatile: boolean;
}

/**
 * Start the PostgreSQL server of this data directory, or adopt the one a killed studio left running.
 * Throws Conflict when another studio uses the directory, Unavailable or EngineUnavailable with a hint when
 * it cannot run here.
 */
export async function startEmbeddedPostgres(options: EmbeddedOptions): Promise<EmbeddedPostgres> {
  await mkdir(resolve(options.dataDir), { recursive: true });
  const dataDir = await realpath(options.dataDir);
  const lock = await lockForProcess(join(dataDir, "studio.lock"), `The data directory ${dataDir}`);
  let serverLog: ServerLog | undefined;
  try {
    serverLog = new ServerLog(join(dataDir, "postgres.log"));
    const place = await prepare(dataDir, options, serverLog);
    const { postmaster, adopted } = await adoptOrStart(place);
    await ensureDatabase(place, postmaster.port);
    return running(place, postmaster, adopted, lock);
  } catch (error) {
    serverLog?.[Symbol.dispose]();
    await lock.release();
    throw error;
  }
}

async function prepare(dataDir: string, options: EmbeddedOptions, serverLog: ServerLog): Promise<Place> {
  const pgdata = join(dataDir, "postgres");
  const identity = process.getuid?.() === 0 ? (options.identity ?? serverIdentity(pgdata)) : undefined;
  // Our own directory may be opened for passing through; what lies in it has its own modes.
  if (identity !== undefined) await chmod(dataDir, ((await stat(dataDir)).mode & 0o777) | 0o011);
  assertEnterable(dataDir, identity);
  const binaries = await locateBinaries(join(dataDir, "runtime"), identity);
  const password = await readPassword(join(dataDir, "postgres.password"));
  const volatile = options.volatile === true;
  await ensureCluster({ pgdata, binaries, identity, password, durable: !volatile });
  const socketDir = join(dataDir, "postgres-socket");
  const fits = Buffer.byteLength(socketDir) <= LONGEST_SOCKET_DIR && !socketDir.includes(",");
  if (fits) {
    await mkdir(socketDir, { recursive: true });
    if (identity !== undefined) await lchown(socketDir, identity.uid, identity.gid);
    await chmod(socketDir, 0o700);
  }
  return {
    dataDir,
    pgdata,
    socketDir: fits ? socketDir : undefined,
    identity,
    binaries,
    password,
    serverLog,
    log: options.log,
    volatile,
  };
}

async function readPassword(path: string): Promise<string> {
  const known = await readFile(path, "utf8").catch(() => "");
  if (known.trim() !== "") return known.trim();
  const password = randomBytes(24).toString("base64url");
  const draft = `${path}.new`;
  await writeFile(draft, password, { mode: 0o600 });
  await rename(draft, path);
  return password;
}

async function adoptOrStart(place: Place): Promise<{ postmaster: Postmaster; adopted: boolean }> {
  const found = await findPostmaster(place.pgdata);
  if (found !== undefined) {
    if (await runsProgram(found.pid, place.binaries.postgres)) {
      await waitUntilReady(place, found);
      place.log.info({ pid: found.pid }, "adopted the database server that was still running");
      return { postmaster: found, adopted: true };
    }
    place.log.warn({ pid: found.pid }, "stopping a database server of another installation");
    await stopPostmaster(found.pid, STOP_FAST_MS, STOP_IMMEDIATE_MS);
  }
  await removeStalePid(place.pgdata, STOP_FAST_MS);
  return { postmaster: await start(place), adopted: false };
}

async function start(place: Place, fixedPort?: number): Promise<Postmaster> {
  for (let attempt = 1; ; attempt += 1) {
    const port = fixedPort ?? (await freePort());
    const from = place.serverLog.size();
    const child = launch({
      pgdata: place.pgdata,
      binaries: place.binaries,
      identity: place.identity,
      port,
      socketDir: place.socketDir,
      logFd: place.serverLog.fd,
      settings: place.volatile ? VOLATILE_SETTINGS : SETTINGS,
    });
    const failed = new Promise<Error>((settle) => child.once("error", settle));
    const { pid } = child;
    if (pid === undefined) throw startFailure(place, (await failed).message);
    try {
      await waitUntilReady(place, { pid, port });
      return { pid, port };
    } catch (error) {
      await stopPostmaster(pid, STOP_FAST_MS, STOP_IMMEDIATE_MS);
      const output = place.serverLog.since(from);
      const portTaken = /could not bind|could not create any TCP\/IP sockets/.test(output);
      if (!portTaken || attempt >= START_ATTEMPTS) throw startFailure(place, lastFatal(output), error);
    }
  }
}

function lastFatal(output: string): string {
  const lines = output.trim().split("\n");
  return lines.findLast((line) => /FATAL|PANIC|error while loading/.test(line)) ?? lines.at(-1) ?? "";
}

function startFailure(place: Place, reason: string, cause?: unknown): AppError {
  return new AppError(
    "Unavailable",
    `The embedded database did not start: ${reason || "no reason given"}`,
    { hint: `See ${place.serverLog.path}; DATABASE_URL points the studio at another PostgreSQL server.` },
    cause,
  );
}

function urlOf(place: Place, port: number, host: string | undefined, database = DATABASE): string {
  const url = new URL(`postgresql://${SUPERUSER}:${place.password}@127.0.0.1:${port}/${database}`);
  if (host !== undefined) url.searchParams.set("host", host);
  return url.href;
}

/** Proves with the stored password that it is our server, on our data, and out of recovery. */
async function waitUntilReady(place: Place, { pid, port }: Postmaster): Promise<void> {
  const deadline = Date.now() + READY_TIMEOUT_MS;
  for (let delay = 10; ; delay = Math.min(delay * 1.5, 500)) {
    try {
      const rows = await query(urlOf(place, port, undefined, "postgres"), "SHOW data_directory");
      if (rows[0]?.data_directory === place.pgdata) return;
      throw startFailure(place, "another server answers on its port");
    } catch (error) {
      const ended = await gone(pid, 0);
      if (ended || !isConnectionFailure(error) || Date.now() > deadline) {
        throw error instanceof AppError ? error : startFailure(place, String(error), error);
      }
    }
    await sleep(delay);
  }
}

async function query(url: string, text: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({
    connectionString: url,
    connectionTimeoutMillis: 5000,
    query_timeout: 30_000,
  });
  client.on("error", () => undefined);
  await client.connect();
  try {
    return (await client.query(text)).rows;
  } finally {
    await client.end();
  }
}

async function ensureDatabase(place: Place, port: number): Promise<void> {
  const url = urlOf(place, port, undefined, "postgres");
  const found = await query(url, `SELECT 1 FROM pg_database WHERE datname = '${DATABASE}'`);
  if (found.length === 0) await query(url, `CREATE DATABASE ${DATABASE}`);
}

function running(
  place: Place,
  postmaster: Postmaster,
  adopted: boolean,
  lock: ProcessLock,
): EmbeddedPostgres {
  let stopping: Promise<void> | undefined;
  const stop = async () => {
    const how = await stopPostmaster(postmaster.pid, STOP_FAST_MS, STOP_IMMEDIATE_MS);
    if (how === "forced")
      place.log.warn("the database server had to be stopped at once; it recovers at next start");
    place.serverLog[Symbol.dispose]();
    await lock.release();
  };
  const server: EmbeddedPostgres = {
    url: urlOf(place, postmaster.port, place.socketDir),
    tcpUrl: urlOf(place, postmaster.port, undefined),
    pid: postmaster.pid,
    adopted,
    stop: () => {
      stopping ??= stop();
      return stopping;
    },
    [Symbol.asyncDispose]: () => server.stop(),
  };
  return server;
}
