import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { AppError } from "#schemas";
import { isConnectionFailure } from "../errors.ts";
import { type Place, urlOf } from "./place.ts";
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

/** Recovery after a crash replays up to max_wal_size: seconds, on a slow disk minutes. */
const READY_TIMEOUT_MS = 300_000;
const START_ATTEMPTS = 5;
const STOP_FAST_MS = 15_000;
const STOP_IMMEDIATE_MS = 5000;
const INVALID_PASSWORD = "28P01";

export interface Running extends Postmaster {
  readonly adopted: boolean;
}

/** The server that a killed studio left running on this data, or a new one. Throws Unavailable. */
export async function adoptOrStart(place: Place, firstPort?: number): Promise<Running> {
  const found = await findPostmaster(place.pgdata);
  if (found !== undefined) {
    if (await runsProgram(found.pid, place.binaries.postgres)) {
      await waitUntilReady(place, found);
      place.log.info({ pid: found.pid }, "adopted the database server that was still running");
      return { ...found, adopted: true };
    }
    place.log.warn({ pid: found.pid }, "stopping a database server of another installation");
    await stopPostmaster(found.pid, STOP_FAST_MS, STOP_IMMEDIATE_MS);
  }
  await removeStalePid(place.pgdata, STOP_FAST_MS);
  return { ...(await start(place, firstPort)), adopted: false };
}

/** Stop in order; when that takes too long, at once (the data is recovered at the next start). */
export async function stopServer(place: Place, pid: number): Promise<void> {
  if ((await stopPostmaster(pid, STOP_FAST_MS, STOP_IMMEDIATE_MS)) === "fast") return;
  place.log.warn("the database server had to be stopped at once; it recovers at the next start");
}

async function start(place: Place, firstPort: number | undefined): Promise<Postmaster> {
  for (let attempt = 1; ; attempt += 1) {
    const port = attempt === 1 && firstPort !== undefined ? firstPort : await freePort();
    const from = place.serverLog.size();
    const { pid, failed } = launch({ ...place, port, logFd: place.serverLog.fd });
    if (pid === undefined) throw startFailure(place, (await failed).message);
    try {
      await waitUntilReady(place, { pid, port });
      return { pid, port };
    } catch (error) {
      await stopPostmaster(pid, STOP_FAST_MS, STOP_IMMEDIATE_MS);
      const output = place.serverLog.since(from);
      const portTaken = /could not bind|could not create any TCP\/IP sockets/.test(output);
      if (portTaken && attempt < START_ATTEMPTS) continue;
      throw error instanceof AppError ? error : startFailure(place, lastFatal(output), error);
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

/**
 * Proves with the stored password that it is our server, on our data, and out of recovery. Over the socket where
 * there is one: on the port somebody else may be listening.
 */
async function waitUntilReady(place: Place, { pid, port }: Postmaster): Promise<void> {
  const url = urlOf(place, port, "postgres", "socket");
  const deadline = Date.now() + READY_TIMEOUT_MS;
  for (let delay = 10; ; delay = Math.min(delay * 1.5, 500)) {
    try {
      const rows = await queryOnce(url, "SHOW data_directory");
      if (rows[0]?.data_directory === place.pgdata) return;
      throw new Error("another server answers on its port");
    } catch (error) {
      if (isWrongPassword(error) && !(await gone(pid, 0))) throw wrongPassword(place, error);
      if ((await gone(pid, 0)) || !isConnectionFailure(error) || Date.now() > deadline) throw error;
    }
    await sleep(delay);
  }
}

function isWrongPassword(error: unknown): boolean {
  return error instanceof pg.DatabaseError && error.code === INVALID_PASSWORD;
}

function wrongPassword(place: Place, cause: unknown): AppError {
  return new AppError(
    "Unavailable",
    "The embedded database does not accept its stored password.",
    { hint: `Put back the file postgres.password that belongs to ${place.pgdata}.` },
    cause,
  );
}

/** One statement on a connection of its own. */
export async function queryOnce(url: string, text: string): Promise<Record<string, unknown>[]> {
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
