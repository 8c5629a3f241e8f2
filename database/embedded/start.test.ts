import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { processStart } from "#platform/host/process-lock.ts";
import { createLogger } from "#platform/log.ts";
import { AppError } from "#schemas";
import { locateBinaries } from "./binaries.ts";
import { freePort, gone } from "./postmaster.ts";
import { queryOnce } from "./server.ts";
import { type EmbeddedOptions, type EmbeddedPostgres, startEmbeddedPostgres } from "./start.ts";

const log = createLogger({ level: "silent", pretty: false });
const root = process.getuid?.() === 0;
const childProgram = resolve(import.meta.dirname, "../../tests/support/embedded-child.ts");

/** One data directory through all its misfortunes: initdb takes seconds on a busy machine. */
describe("embedded PostgreSQL", () => {
  let base: string;
  let dataDir: string;
  const servers: EmbeddedPostgres[] = [];
  const children: ChildProcess[] = [];

  beforeAll(async () => {
    base = mkdtempSync(join(tmpdir(), "cds-emb-"));
    chmodSync(base, 0o711);
    dataDir = join(base, "data");
    const server = await start();
    await queryOnce(server.url, "CREATE TABLE kept (n serial, uid integer)");
    await server.stop();
  });
  afterEach(async () => {
    for (const child of children.splice(0)) child.kill("SIGKILL");
    for (const server of servers.splice(0)) await server.stop();
  });
  afterAll(() => rmSync(base, { recursive: true, force: true }));

  const start = async (more: Partial<EmbeddedOptions> = {}) => {
    const server = await startEmbeddedPostgres({ dataDir, log, ...more });
    servers.push(server);
    return server;
  };
  const failure = async (more: Partial<EmbeddedOptions> = {}) => {
    const error: unknown = await start(more).then(
      () => undefined,
      (reason: unknown) => reason,
    );
    if (!(error instanceof AppError)) throw new Error(`expected an AppError, got ${String(error)}`);
    return { code: error.code, text: `${error.message} ${error.details.hint}` };
  };
  /** A studio of its own process, as far as the database goes. */
  const studio = async (identity?: { uid: number; gid: number }, directory = dataDir) => {
    const child = spawn(process.execPath, [childProgram, directory], {
      ...identity,
      stdio: ["pipe", "pipe", "inherit"],
      env: { PATH: process.env.PATH, HOME: directory },
    });
    children.push(child);
    for await (const line of createInterface(child.stdout)) {
      const { pid, adopted } = JSON.parse(line);
      return { child, pid: Number(pid), adopted: adopted === true };
    }
    throw new Error("the child ended without a word");
  };
  const kill = async (child: ChildProcess) => {
    child.kill("SIGKILL");
    await gone(child.pid ?? 0, 5000);
  };
  /** Empties the table: every test starts with none. */
  const kept = async (server: EmbeddedPostgres) =>
    (await queryOnce(server.url, "DELETE FROM kept RETURNING n")).length;

  it("starts from nothing, small and durable, over a private socket and loopback only", async () => {
    const server = await start();
    expect(server.adopted).toBe(false);
    expect(new URL(server.url).searchParams.get("host")).toContain(dataDir);
    const setting = async (name: string) => (await queryOnce(server.tcpUrl, `SHOW ${name}`))[0]?.[name];
    expect(await setting("fsync")).toBe("on");
    expect(await setting("synchronous_commit")).toBe("on");
    expect(await setting("shared_buffers")).toBe("64MB");
    expect(await setting("max_connections")).toBe("60");
    expect(await setting("server_encoding")).toBe("UTF8");
    expect(await setting("TimeZone")).toBe("UTC");
    expect(await setting("listen_addresses")).toBe("127.0.0.1");
    const [row] = await queryOnce(server.url, "SELECT lower('ÄÖÜ') AS low, version() AS version");
    expect(row?.low).toBe("äöü");
    expect(row?.version).toMatch(/^PostgreSQL 18/);
    expect(statSync(join(dataDir, "postgres.password")).mode & 0o777).toBe(0o600);
    expect(statSync(join(dataDir, "postgres-socket")).mode & 0o777).toBe(0o700);
    expect(statSync(join(dataDir, "postgres")).mode & 0o777).toBe(0o700);
  });

  it("lets nobody in without the password", async () => {
    const server = await start();
    const url = new URL(server.tcpUrl);
    url.password = "wrong";
    await expect(queryOnce(url.href, "SELECT 1")).rejects.toThrow(/password authentication failed/);
  });

  it("keeps the data over a stop and leaves no process, socket or lock behind", async () => {
    const first = await start();
    await queryOnce(first.url, "INSERT INTO kept (uid) VALUES (0)");
    await first.stop();
    await first.stop();
    expect(await processStart(first.pid)).toBeUndefined();
    for (const left of ["studio.lock", "postgres/postmaster.pid"]) {
      expect(existsSync(join(dataDir, left))).toBe(false);
    }
    expect(execFileSync("ls", ["-A", join(dataDir, "postgres-socket")], { encoding: "utf8" })).toBe("");
    const second = await start();
    expect(second.adopted).toBe(false);
    expect(await kept(second)).toBe(1);
  });

  it("refuses a second studio on the same data directory", async () => {
    await start();
    expect(await failure()).toMatchObject({
      code: "Conflict",
      text: expect.stringContaining("CDS_DATA_DIR"),
    });
    const link = `${dataDir}-link`;
    symlinkSync(dataDir, link);
    expect(await failure({ dataDir: link })).toMatchObject({ code: "Conflict" });
    rmSync(link);
  });

  it("adopts the server that a killed studio left running, without losing a row", async () => {
    const { child, pid } = await studio();
    await kill(child);
    expect(await processStart(pid)).toBeDefined();
    const server = await start();
    expect(server).toMatchObject({ adopted: true, pid });
    expect(await kept(server)).toBe(1);
    await server.stop();
    expect(await processStart(pid)).toBeUndefined();
  });

  it("recovers when studio and server were both killed", async () => {
    const { child, pid } = await studio();
    await kill(child);
    process.kill(pid, "SIGKILL");
    const server = await start();
    expect(server.adopted).toBe(false);
    expect(await kept(server)).toBe(1);
  });

  it("is not fooled by a postmaster.pid whose pid is another program's now", async () => {
    const { child, pid } = await studio();
    await kill(child);
    process.kill(pid, "SIGKILL");
    await gone(pid, 5000);
    const file = join(dataDir, "postgres/postmaster.pid");
    const lines = readFileSync(file, "utf8").split("\n");
    for (const impostor of [process.pid, 999_999_999]) {
      writeFileSync(file, [impostor, ...lines.slice(1)].join("\n"));
      const server = await start();
      expect(server.adopted).toBe(false);
      await server.stop();
    }
    writeFileSync(file, "half a li");
    const server = await start();
    expect(server.adopted).toBe(false);
    expect(await kept(server)).toBe(1);
  });

  it("starts a server that died again, at the same address", async () => {
    const server = await start();
    const { pid } = server;
    await queryOnce(server.url, "INSERT INTO kept (uid) VALUES (0)");
    process.kill(pid, "SIGKILL");
    for (const until = Date.now() + 45_000; server.pid === pid && Date.now() < until; ) await sleep(50);
    expect(server.pid).not.toBe(pid);
    expect(await kept(server)).toBe(1);
  });

  it("takes another port when the first is in use", async () => {
    const port = await freePort();
    const other = createServer((socket) => socket.resume());
    await new Promise<void>((done) => other.listen(port, "127.0.0.1", done));
    const server = await start({ port });
    expect(new URL(server.tcpUrl).port).not.toBe(String(port));
    expect(await kept(server)).toBe(0);
    await new Promise((done) => other.close(done));
  });

  it("uses TCP where the path is too long for a socket", async () => {
    const deep = join(base, "a".repeat(60), "b".repeat(60));
    mkdirSync(dirname(deep));
    renameSync(dataDir, deep);
    const server = await start({ dataDir: deep });
    expect(server.url).toBe(server.tcpUrl);
    expect(await kept(server)).toBe(0);
    await server.stop();
    renameSync(deep, dataDir);
  });

  it.runIf(root)(
    "runs as an unprivileged user when we are root, and as ourselves when we are not",
    async () => {
      const server = await start();
      const uid = statSync(`/proc/${server.pid}`).uid;
      expect(uid).toBeGreaterThan(0);
      expect(statSync(join(dataDir, "postgres")).uid).toBe(uid);
      await server.stop();
      const own = join(base, "own");
      mkdirSync(own);
      // initdb wants a user with a name, so an ordinary one that surely exists.
      chownSync(own, 65_534, 65_534);
      const { child, pid } = await studio({ uid: 65_534, gid: 65_534 }, own);
      expect(statSync(`/proc/${pid}`).uid).toBe(65_534);
      child.stdin?.end();
      expect(await gone(child.pid ?? 0, 20_000)).toBe(true);
      expect(await processStart(pid)).toBeUndefined();
      const asRoot = await start({ dataDir: own });
      expect(statSync(`/proc/${asRoot.pid}`).uid).toBe(65_534);
      await asRoot.stop();
      rmSync(own, { recursive: true });
    },
  );

  it.runIf(root)("names the directory its user may not enter", async () => {
    const closed = join(base, "home");
    mkdirSync(closed, { mode: 0o700 });
    expect(await failure({ dataDir: join(closed, "data") })).toMatchObject({
      code: "Unavailable",
      text: expect.stringMatching(new RegExp(`may not enter ${closed}.*CDS_DATA_DIR`)),
    });
  });

  it("runs from a copy where the programs cannot be used in place, with the library links made", async () => {
    const { postgres } = await locateBinaries(base, undefined);
    const installed = dirname(dirname(dirname(postgres)));
    const closed = join(base, "closed");
    mkdirSync(closed);
    execFileSync("cp", ["-a", installed, join(closed, "package")]);
    execFileSync("find", [join(closed, "package/native/lib"), "-maxdepth", "1", "-type", "l", "-delete"]);
    // As root by its mode, as anybody by its library directory, the package cannot be used as it is.
    if (root) chmodSync(closed, 0o700);
    else chmodSync(join(closed, "package/native/lib"), 0o555);
    const identity = root ? { uid: 65_534, gid: 65_534 } : undefined;
    const runtime = join(base, "runtime");
    const copies = [1, 2].map(() => locateBinaries(runtime, identity, join(closed, "package")));
    const [first] = await Promise.all(copies);
    expect(first?.postgres).toContain(runtime);
    const output = execFileSync(first?.postgres ?? "", ["--version"], {
      encoding: "utf8",
      ...identity,
      cwd: "/",
    });
    expect(output).toMatch(/PostgreSQL\) 18/);
    expect(readlinkSync(join(dirname(dirname(first?.postgres ?? "")), "lib/libpq.so.5"))).toBe(
      "libpq.so.5.18",
    );
    if (!root) chmodSync(join(closed, "package/native/lib"), 0o755);
    await expect(locateBinaries(runtime, identity, join(base, "nothing"))).rejects.toThrow();
  });

  it("says what is wrong with data it cannot use", async () => {
    const password = readFileSync(join(dataDir, "postgres.password"), "utf8");
    writeFileSync(join(dataDir, "postgres.password"), "another");
    expect((await failure()).text).toMatch(/password.*postgres\.password/);
    writeFileSync(join(dataDir, "postgres.password"), password);
    const version = join(dataDir, "postgres/PG_VERSION");
    writeFileSync(version, "12\n");
    expect((await failure()).text).toMatch(/PostgreSQL 12/);
    rmSync(version);
    expect(await failure()).toMatchObject({ code: "Unavailable" });
    expect(existsSync(join(dataDir, "postgres/base"))).toBe(true);
    writeFileSync(version, "18\n");
    rmSync(join(dataDir, "postgres/global/pg_control"));
    expect((await failure()).text).toMatch(/did not start: .*(pg_control|FATAL|PANIC|could not)/);
    expect(existsSync(join(dataDir, "studio.lock"))).toBe(false);
    expect((await failure({ dataDir: join(dataDir, "postgres.password") })).text).toMatch(/cannot be set up/);
  });
});
