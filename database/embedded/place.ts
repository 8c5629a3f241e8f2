import { randomBytes } from "node:crypto";
import { chmod, lchown, mkdir, rename, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Identity } from "#platform/host/enterable.ts";
import type { Log } from "#platform/log.ts";
import { AppError } from "#schemas";
import { type Binaries, locateBinaries } from "./binaries.ts";
import { ensureCluster, SUPERUSER } from "./cluster.ts";
import { readIfThere } from "./files.ts";
import { assertEnterable, serverIdentity } from "./identity.ts";
import { ServerLog } from "./server-log.ts";
import { serverSettings } from "./settings.ts";

/** A unix socket's path may have 107 bytes; PostgreSQL adds `/.s.PGSQL.<port>`. */
const LONGEST_SOCKET_DIR = 107 - "/.s.PGSQL.65535".length;

export interface PlaceOptions {
  readonly log: Log;
  /** Whom the server runs as when we are root; else chosen (see serverIdentity). */
  readonly identity?: Identity;
  /** Connections we will open at most; the server takes at least 60. */
  readonly connections?: number;
  /** True for tests: nothing is forced to disk. */
  readonly volatile?: boolean;
}

/** Everything one server needs, in one data directory. */
export interface Place {
  readonly pgdata: string;
  /** Undefined where the path is too long for a unix socket. */
  readonly socketDir: string | undefined;
  readonly identity: Identity | undefined;
  readonly binaries: Binaries;
  readonly password: string;
  readonly serverLog: ServerLog;
  readonly log: Log;
  readonly settings: Readonly<Record<string, string>>;
}

/** Make what is missing: rights, programs, password, cluster, socket directory. `dataDir` is a real path. */
export async function preparePlace(dataDir: string, options: PlaceOptions): Promise<Place> {
  const pgdata = join(dataDir, "postgres");
  await assertOurs(pgdata);
  const identity = process.getuid?.() === 0 ? (options.identity ?? serverIdentity(pgdata)) : undefined;
  // Our own directory may be opened for passing through; what lies in it has its own modes.
  if (identity !== undefined) await chmod(dataDir, ((await stat(dataDir)).mode & 0o777) | 0o011);
  assertEnterable(dataDir, identity);
  const binaries = await locateBinaries(join(dataDir, "runtime"), identity);
  const password = await readPassword(join(dataDir, "postgres.password"));
  const volatile = options.volatile === true;
  await ensureCluster({ pgdata, binaries, identity, password, durable: !volatile });
  const socketDir = await makeSocketDir(join(dataDir, "postgres-socket"), identity);
  const serverLog = new ServerLog(join(dataDir, "postgres.log"));
  const settings = serverSettings(options.connections ?? 0, volatile);
  return { pgdata, socketDir, identity, binaries, password, serverLog, log: options.log, settings };
}

/** Data a studio wrote as root belongs to another user; an ordinary one cannot go on with it. */
async function assertOurs(pgdata: string): Promise<void> {
  const owner = (await stat(pgdata).catch(() => undefined))?.uid;
  const uid = process.getuid?.();
  if (owner === undefined || uid === undefined || uid === 0 || owner === uid) return;
  throw new AppError(
    "Unavailable",
    `The data in ${pgdata} belongs to user id ${owner}, not to ours (${uid}).`,
    {
      hint: `Start the studio as the user who made it (root, if that was you), or run chown -R ${uid} on the data directory.`,
    },
  );
}

async function readPassword(path: string): Promise<string> {
  const known = await readIfThere(path);
  if (known !== undefined && known.trim() !== "") return known.trim();
  const password = randomBytes(24).toString("base64url");
  await writeFile(`${path}.new`, password, { mode: 0o600 });
  await rename(`${path}.new`, path);
  return password;
}

async function makeSocketDir(path: string, identity: Identity | undefined): Promise<string | undefined> {
  // A comma would part two directories in PostgreSQL's setting.
  if (Buffer.byteLength(path) > LONGEST_SOCKET_DIR || path.includes(",")) return undefined;
  await mkdir(path, { recursive: true });
  if (identity !== undefined) await lchown(path, identity.uid, identity.gid);
  await chmod(path, 0o700);
  return path;
}

/** The address of a database of this server, over its unix socket where it has one, or by TCP. */
export function urlOf(place: Place, port: number, database: string, over: "socket" | "tcp"): string {
  const url = new URL(`postgresql://${SUPERUSER}:${place.password}@127.0.0.1:${port}/${database}`);
  if (over === "socket" && place.socketDir !== undefined) url.searchParams.set("host", place.socketDir);
  return url.href;
}
