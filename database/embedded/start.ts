import { mkdir, realpath } from "node:fs/promises";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { lockForProcess, type ProcessLock } from "#platform/host/process-lock.ts";
import { AppError } from "#schemas";
import { type Place, type PlaceOptions, preparePlace, urlOf } from "./place.ts";
import { gone } from "./postmaster.ts";
import { adoptOrStart, queryOnce, type Running, stopServer } from "./server.ts";

const DATABASE = "cyberdevstudio";
const WATCH_MS = 500;
const LONGEST_RESTART_DELAY_MS = 30_000;

export interface EmbeddedOptions extends PlaceOptions {
  /** Everything lies below it: postgres/, postgres.log, postgres.password, postgres-socket/, runtime/. */
  readonly dataDir: string;
  /** Tried first; another free one is taken when somebody has it. */
  readonly port?: number;
}

export interface EmbeddedPostgres extends AsyncDisposable {
  /** Over the unix socket where its path is short enough, else loopback TCP. */
  readonly url: string;
  readonly tcpUrl: string;
  /** The server's process now; another one after it had to be started again. */
  readonly pid: number;
  /** Whether the server was already running, left behind by a studio that was killed. */
  readonly adopted: boolean;
  /** Stop the server in order; the data is on disk when it resolves. */
  stop(): Promise<void>;
}

/**
 * Start the PostgreSQL server of this data directory, or adopt the one a killed studio left running. A server
 * that dies is started again at the same address.
 * Throws Conflict when another studio uses the directory, Unavailable or EngineUnavailable with a hint when
 * it cannot run here.
 */
export async function startEmbeddedPostgres(options: EmbeddedOptions): Promise<EmbeddedPostgres> {
  let lock: ProcessLock | undefined;
  let place: Place | undefined;
  try {
    await mkdir(resolve(options.dataDir), { recursive: true });
    const dataDir = await realpath(options.dataDir);
    lock = await lockForProcess(join(dataDir, "studio.lock"), `The data directory ${dataDir}`);
    place = await preparePlace(dataDir, options);
    const running = await adoptOrStart(place, options.port);
    await ensureDatabase(place, running.port);
    return new Server(place, running, lock);
  } catch (error) {
    place?.serverLog[Symbol.dispose]();
    await lock?.release();
    throw error instanceof AppError ? error : notPrepared(options.dataDir, error);
  }
}

function notPrepared(dataDir: string, cause: unknown): AppError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new AppError(
    "Unavailable",
    `The embedded database cannot be set up: ${reason}`,
    { hint: `Check the rights and the free space of ${dataDir}, or set DATABASE_URL.` },
    cause,
  );
}

async function ensureDatabase(place: Place, port: number): Promise<void> {
  const url = urlOf(place, port, "postgres", "socket");
  const found = await queryOnce(url, `SELECT 1 FROM pg_database WHERE datname = '${DATABASE}'`);
  if (found.length === 0) await queryOnce(url, `CREATE DATABASE ${DATABASE}`);
}

class Server implements EmbeddedPostgres {
  readonly url: string;
  readonly tcpUrl: string;
  readonly adopted: boolean;
  readonly #place: Place;
  readonly #port: number;
  readonly #lock: ProcessLock;
  readonly #stopping = new AbortController();
  readonly #watching: Promise<void>;
  #pid: number;
  #stopped: Promise<void> | undefined;

  constructor(place: Place, running: Running, lock: ProcessLock) {
    this.#place = place;
    this.#port = running.port;
    this.#lock = lock;
    this.#pid = running.pid;
    this.adopted = running.adopted;
    this.url = urlOf(place, running.port, DATABASE, "socket");
    this.tcpUrl = urlOf(place, running.port, DATABASE, "tcp");
    this.#watching = this.#watch();
  }

  get pid(): number {
    return this.#pid;
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  async #stop(): Promise<void> {
    this.#stopping.abort();
    await this.#watching;
    await stopServer(this.#place, this.#pid);
    this.#place.serverLog[Symbol.dispose]();
    await this.#lock.release();
  }

  async #watch(): Promise<void> {
    while (await this.#pause(WATCH_MS)) {
      if (await gone(this.#pid, 0)) await this.#restart();
    }
  }

  async #restart(): Promise<void> {
    this.#place.log.error({ pid: this.#pid }, "the database server is gone, starting it again");
    for (let delay = WATCH_MS; ; delay = Math.min(delay * 2, LONGEST_RESTART_DELAY_MS)) {
      try {
        const again = await adoptOrStart(this.#place, this.#port);
        this.#pid = again.pid;
        if (again.port === this.#port) return;
        await stopServer(this.#place, again.pid);
        throw new Error(`port ${this.#port} is taken`);
      } catch (error) {
        this.#place.log.error({ err: error, delay_ms: delay }, "the database server did not start again");
        if (!(await this.#pause(delay))) return;
      }
    }
  }

  /** False when we are to stop. */
  #pause(ms: number): Promise<boolean> {
    return sleep(ms, true, { signal: this.#stopping.signal, ref: false }).catch(() => false);
  }
}
