import { spawn } from "node:child_process";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { isMainThread } from "node:worker_threads";
import pg from "pg";
import { migrate, openDatabase } from "#database";
import { startEmbeddedPostgres } from "#database/embedded/start.ts";
import { lockForProcess, processStart } from "#platform/host/process-lock.ts";
import { createLogger } from "#platform/log.ts";
import { AppError } from "#schemas";

export const TEMPLATE = "cds_template";
const START_TIMEOUT_MS = 90_000;

/** What the first test file of a run writes down for the others. */
interface SharedServer {
  readonly url: string;
}

/** The test run: vitest's main process, whichever of its workers we are; outside of vitest, ourselves. */
const runPid = process.env.VITEST !== undefined && isMainThread ? process.ppid : process.pid;

let known: Promise<string> | undefined;

/** The address of the run's one PostgreSQL server, started by whoever needs it first. */
export function sharedServer(): Promise<string> {
  known ??= findOrStart();
  return known;
}

async function findOrStart(): Promise<string> {
  const directory = join(tmpdir(), `cds-test-${runPid}-${await processStart(runPid)}`);
  const file = join(directory, "server.json");
  await mkdir(directory, { recursive: true, mode: 0o711 });
  for (const deadline = Date.now() + START_TIMEOUT_MS; Date.now() < deadline; await sleep(50)) {
    const text = await readFile(file, "utf8").catch(() => undefined);
    if (text !== undefined) return (JSON.parse(text) as SharedServer).url;
    try {
      await using _lock = await lockForProcess(join(directory, "starter.lock"), "The test server");
      if ((await readFile(file, "utf8").catch(() => undefined)) !== undefined) continue;
      return await start(directory, file);
    } catch (error) {
      if (!(error instanceof AppError) || error.code !== "Conflict") throw error;
    }
  }
  throw new Error(`The test database did not start, see ${directory}`);
}

async function start(directory: string, file: string): Promise<string> {
  const log = createLogger({ level: "error", pretty: false });
  const server = await startEmbeddedPostgres({ dataDir: directory, log, volatile: true });
  stopAfterRun(server.pid, directory);
  const admin = new pg.Client({ connectionString: server.url });
  await admin.connect();
  await admin.query(`CREATE DATABASE ${TEMPLATE}`);
  await admin.end();
  const template = await openDatabase({ url: databaseUrl(server.url, TEMPLATE), ...SMALL, log });
  await migrate(template.db);
  await template.close();
  await writeFile(`${file}.new`, JSON.stringify({ url: server.url } satisfies SharedServer), { mode: 0o600 });
  await rename(`${file}.new`, file);
  return server.url;
}

export const SMALL = { pool: 10, connectTimeoutMs: 15_000, statementTimeoutMs: 30_000 } as const;

export function databaseUrl(serverUrl: string, name: string): string {
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  return url.href;
}

/**
 * Leave nothing behind however the run ends, kill -9 included: a shell that waits for the run's process and
 * then stops the server and removes its directory.
 */
function stopAfterRun(serverPid: number, directory: string): void {
  const script = `
    while kill -0 "$1" 2>/dev/null; do sleep 0.2; done
    kill -INT "$2" 2>/dev/null
    n=0
    while kill -0 "$2" 2>/dev/null && [ $n -lt 50 ]; do sleep 0.1; n=$((n + 1)); done
    kill -QUIT "$2" 2>/dev/null
    rm -rf "$3"`;
  spawn("/bin/sh", ["-c", script, "sh", String(runPid), String(serverPid), directory], {
    cwd: "/",
    detached: true,
    stdio: "ignore",
    env: { PATH: process.env.PATH },
  }).unref();
}

export async function removeDatabase(serverUrl: string, name: string): Promise<void> {
  const admin = new pg.Client({ connectionString: serverUrl });
  await admin.connect();
  await admin.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
  await admin.end();
}

/** A copy of the migrated template, or of nothing. */
export async function createDatabase(serverUrl: string, name: string, template: string): Promise<void> {
  const admin = new pg.Client({ connectionString: serverUrl });
  await admin.connect();
  try {
    await admin.query(`CREATE DATABASE ${name} TEMPLATE ${template} STRATEGY FILE_COPY`);
  } finally {
    await admin.end();
  }
}
