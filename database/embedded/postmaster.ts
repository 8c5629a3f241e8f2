import { spawn } from "node:child_process";
import { readdir, readFile, readlink, realpath, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Identity } from "#platform/host/enterable.ts";
import { processStart } from "#platform/host/process-lock.ts";
import type { Binaries } from "./binaries.ts";

const POLL_MS = 20;

/** What a running server says of itself in postmaster.pid. */
export interface Postmaster {
  readonly pid: number;
  readonly port: number;
}

/** A free loopback port; somebody may take it before we do, so callers try again with another. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

/**
 * The server running on `pgdata`, proven by its working directory, since a pid may have been used again.
 * Undefined when there is none, whatever a stale postmaster.pid says.
 */
export async function findPostmaster(pgdata: string): Promise<Postmaster | undefined> {
  const lines = (await readFile(join(pgdata, "postmaster.pid"), "utf8").catch(() => "")).split("\n");
  const pid = Number(lines[0]);
  const port = Number(lines[3]);
  if (!Number.isInteger(pid) || pid <= 1 || !Number.isInteger(port) || port <= 0) return undefined;
  return (await worksIn(pid, await realpath(pgdata))) ? { pid, port } : undefined;
}

async function worksIn(pid: number, directory: string): Promise<boolean> {
  if ((await processStart(pid)) === undefined) return false;
  if (process.platform !== "linux") return true;
  return (await readlink(`/proc/${pid}/cwd`).catch(() => undefined)) === directory;
}

/**
 * Remove a postmaster.pid nobody stands behind: PostgreSQL refuses to start when its pid is now another
 * program's. It stays while any process works in the directory (backends of a killed server finish alone).
 */
export async function removeStalePid(pgdata: string, timeoutMs: number): Promise<void> {
  if (process.platform !== "linux") return;
  const directory = await realpath(pgdata);
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const pids = (await readdir("/proc")).map(Number).filter((pid) => pid > 1);
    const working = await Promise.all(pids.map((pid) => worksIn(pid, directory)));
    if (!working.includes(true)) break;
    if (Date.now() > deadline) return;
    await sleep(100);
  }
  await rm(join(pgdata, "postmaster.pid"), { force: true });
}

/** Whether the program behind the pid is the one we would start (not one of an older installation). */
export async function runsProgram(pid: number, program: string): Promise<boolean> {
  if (process.platform !== "linux") return true;
  return (await readlink(`/proc/${pid}/exe`).catch(() => undefined)) === (await realpath(program));
}

export interface LaunchOptions {
  readonly pgdata: string;
  readonly binaries: Binaries;
  readonly identity: Identity | undefined;
  readonly port: number;
  readonly socketDir: string | undefined;
  /** Open for appending; stdout and stderr go there. */
  readonly logFd: number;
  readonly settings: Readonly<Record<string, string>>;
}

/**
 * Start the server in a session of its own, so that Ctrl+C reaches us alone and we stop it in order.
 * No pid: it could not be started at all, `failed` tells why.
 */
export function launch(options: LaunchOptions): { pid: number | undefined; failed: Promise<Error> } {
  const settings = {
    ...options.settings,
    port: String(options.port),
    listen_addresses: "127.0.0.1",
    unix_socket_directories: options.socketDir ?? "",
  };
  const child = spawn(
    options.binaries.postgres,
    [
      "-D",
      options.pgdata,
      ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]),
    ],
    {
      ...options.identity,
      cwd: options.pgdata,
      env: { LC_ALL: "C", TZ: "UTC" },
      stdio: ["ignore", options.logFd, options.logFd],
      detached: true,
    },
  );
  child.unref();
  return { pid: child.pid, failed: new Promise((resolve) => child.once("error", resolve)) };
}

/** Wait until the process is gone; false when it still is there after `timeoutMs`. */
export async function gone(pid: number, timeoutMs: number): Promise<boolean> {
  const deadline = Date.now() + timeoutMs;
  while ((await processStart(pid)) !== undefined) {
    if (Date.now() > deadline) return false;
    await sleep(POLL_MS);
  }
  return true;
}

/** Stop a server: fast (clients are cut off, data is written), then immediate (recovery at next start). */
export async function stopPostmaster(
  pid: number,
  fastMs: number,
  immediateMs: number,
): Promise<"fast" | "forced"> {
  if (!signal(pid, "SIGINT") || (await gone(pid, fastMs))) return "fast";
  if (!signal(pid, "SIGQUIT") || (await gone(pid, immediateMs))) return "forced";
  signal(pid, "SIGKILL");
  await gone(pid, immediateMs);
  return "forced";
}

function signal(pid: number, name: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, name);
  } catch {
    return false;
  }
}
