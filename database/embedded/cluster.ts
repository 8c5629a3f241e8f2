import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmod, lchown, mkdir, readdir, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import type { Identity } from "#platform/host/enterable.ts";
import { AppError } from "#schemas";
import type { Binaries } from "./binaries.ts";
import { readIfThere } from "./files.ts";
import { namedIdentity } from "./identity.ts";

const INITDB_TIMEOUT_MS = 180_000;

/** The database's owner and only role; it listens on loopback and a private socket, behind a random password. */
export const SUPERUSER = "cds";

export interface ClusterOptions {
  readonly pgdata: string;
  readonly binaries: Binaries;
  readonly identity: Identity | undefined;
  readonly password: string;
  /** False only for data nobody will miss: skips every fsync. */
  readonly durable: boolean;
}

/**
 * Make the cluster unless it is there. It is made aside and renamed, so a kill in between leaves no half one;
 * the rename replaces an empty directory at most.
 * Throws Unavailable when initdb fails or the files are of another major version.
 */
export async function ensureCluster(options: ClusterOptions): Promise<void> {
  const { pgdata, binaries } = options;
  const version = await readIfThere(join(pgdata, "PG_VERSION"));
  if (version === undefined) return makeCluster(options);
  const [major] = binaries.version.split(".");
  if (version.trim() === major) return;
  throw new AppError(
    "Unavailable",
    `The data in ${pgdata} is of PostgreSQL ${version.trim()}, this program brings ${binaries.version}.`,
    { hint: "Start the version of the studio that wrote it and export, or use another data directory." },
  );
}

async function makeCluster({ pgdata, binaries, identity, password, durable }: ClusterOptions): Promise<void> {
  const draft = `${pgdata}.new`;
  await rm(draft, { recursive: true, force: true });
  await mkdir(draft, { mode: 0o700 });
  const passwordFile = join(dirname(pgdata), `.initdb-${randomBytes(6).toString("hex")}`);
  const maker = identity === undefined ? undefined : namedIdentity();
  try {
    await writeFile(passwordFile, password, { mode: 0o600, flag: "wx" });
    if (maker !== undefined) {
      await lchown(passwordFile, maker.uid, maker.gid);
      await lchown(draft, maker.uid, maker.gid);
    }
    await promisify(execFile)(binaries.initdb, initdbArguments(draft, passwordFile, durable), {
      ...maker,
      cwd: draft,
      env: { LC_ALL: "C", TZ: "UTC" },
      timeout: INITDB_TIMEOUT_MS,
      killSignal: "SIGKILL",
    });
    if (identity !== undefined) await giveTo(draft, identity);
    await chmod(draft, 0o700);
    await rename(draft, pgdata);
  } catch (error) {
    await rm(draft, { recursive: true, force: true });
    const output = error instanceof Error && "stderr" in error ? String(error.stderr).trim() : "";
    throw new AppError(
      "Unavailable",
      `The embedded database could not be made: ${output.split("\n")[0] || String(error)}`,
      { hint: "Check the free space and the rights of the data directory, or set DATABASE_URL." },
      error,
    );
  } finally {
    await rm(passwordFile, { force: true });
  }
}

function initdbArguments(directory: string, passwordFile: string, durable: boolean): string[] {
  return [
    `--pgdata=${directory}`,
    `--username=${SUPERUSER}`,
    `--pwfile=${passwordFile}`,
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--locale=C",
    "--no-instructions",
    ...(durable ? [] : ["--no-sync"]),
  ];
}

/** Links are not followed: the tree was made by another user. */
async function giveTo(path: string, { uid, gid }: Identity): Promise<void> {
  for (const entry of await readdir(path, { withFileTypes: true })) {
    const child = join(path, entry.name);
    if (entry.isDirectory()) await giveTo(child, { uid, gid });
    else await lchown(child, uid, gid);
  }
  await lchown(path, uid, gid);
}
