import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtemp, readFile, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Duplex } from "node:stream";
import fc from "fast-check";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { until } from "../../../testing/harness.ts";
import { AgentClient } from "./agent-client.ts";
import type { ExecRequest } from "./program.ts";
import { encodeJson, encodeStdin, NONCE_BYTES, syncFrame } from "./protocol.ts";

/**
 * The agent as an ordinary process, without the machine's limits and rights: its protocol. What only a machine shows
 * is in machine.test.ts.
 */

const PYTHON = spawnSync("python3", ["-c", "import sys; sys.exit(sys.version_info < (3, 9))"]);
const READY_MS = 30_000;
const reason = PYTHON.status === 0 ? "" : " (skipped: no python3 >= 3.9 here)";

let dir: string;
let agent: ChildProcess;
let stream: Duplex;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "cds-agent-"));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

function boot(): void {
  const file = join(import.meta.dirname, "agent.py");
  agent = spawn("python3", ["-s", "-S", "-B", file, "--stdio"], {
    cwd: dir,
    stdio: ["pipe", "pipe", "inherit"],
  });
  const { stdin, stdout } = agent;
  if (stdin === null || stdout === null) throw new Error("no pipes");
  stdin.on("error", () => undefined);
  stream = Duplex.from({ writable: stdin, readable: stdout });
}

const connect = () => AgentClient.connect(stream, { readyMs: READY_MS });
async function prepared(): Promise<AgentClient> {
  const client = await connect();
  await client.prepare();
  return client;
}

const sh = (script: string, more: Partial<ExecRequest> = {}): ExecRequest => ({
  argv: ["sh", "-c", script],
  env: {},
  cwd: dir,
  timeoutMs: 60_000,
  outputBytes: 1024 * 1024,
  ...more,
});

describe.skipIf(PYTHON.status !== 0)(`the guest agent${reason}`, () => {
  beforeEach(boot);
  afterEach(() => {
    agent.kill("SIGKILL");
  });

  it("[SB-micro] runs nothing, reads and writes nothing before it was given entropy", async () => {
    const client = await connect();
    await expect(client.exec(sh("true"))).rejects.toMatchObject({ code: "InvalidParams" });
    await expect(client.read("x", 10)).rejects.toMatchObject({ code: "InvalidParams" });
    await expect(client.write("x", Buffer.from("x"))).rejects.toMatchObject({ code: "InvalidParams" });
    await client.ping();
    await client.prepare();
    expect(await client.exec(sh("echo $TZ $NAME; exit 3", { env: { NAME: "ä" } }))).toMatchObject({
      code: 3,
      signal: null,
      stdout: Buffer.from("UTC ä\n"),
      truncated: false,
    });
  });

  it("gives back every byte, of both outputs, of several programs at once, with their input", async () => {
    const client = await prepared();
    const bytes = Buffer.from(Uint8Array.from({ length: 900_000 }, (_, index) => (index * 7) % 256));
    const results = await Promise.all(
      [1, 2, 3].map((n) => client.exec(sh(`cat; echo ${n} >&2`, { stdin: bytes }))),
    );
    for (const [index, { stdout, stderr }] of results.entries()) {
      expect(stdout.equals(bytes)).toBe(true);
      expect(String(stderr)).toBe(`${index + 1}\n`);
    }
    expect(await client.exec(sh("cat", { stdin: Buffer.alloc(0) }))).toMatchObject({
      code: 0,
      stdout: Buffer.alloc(0),
    });
    // Whoever reads no input does not stop the others.
    expect(await client.exec(sh("exit 4", { stdin: bytes }))).toMatchObject({ code: 4 });
    await client.ping();
  });

  it("drops what is beyond the wanted output, and tells", async () => {
    const client = await prepared();
    const { stdout, truncated, code } = await client.exec(
      sh("yes | head -c 3000000", { outputBytes: 100_001 }),
    );
    expect([stdout.length, truncated, code]).toEqual([100_001, true, 0]);
  });

  it("ends what takes too long, and what nobody wants any more", async () => {
    const client = await prepared();
    await expect(client.exec(sh("sleep 1000", { timeoutMs: 50 }))).rejects.toMatchObject({ code: "Timeout" });
    const stop = new AbortController();
    const running = client.exec(
      sh("echo on; sleep 1000", { signal: stop.signal, onOutput: () => stop.abort() }),
    );
    await expect(running).rejects.toMatchObject({ code: "Cancelled" });
    const already = client.exec(sh("true", { signal: AbortSignal.abort() }));
    await expect(already).rejects.toMatchObject({ code: "Cancelled" });
    expect(await client.exec(sh("kill -TERM $$"))).toMatchObject({ code: null, signal: "SIGTERM" });
  });

  it("tells what cannot be started", async () => {
    const client = await prepared();
    for (const request of [
      sh("", { argv: ["/no/such"] }),
      sh("true", { cwd: "/no/such" }),
      sh("", { argv: [] }),
    ]) {
      await expect(client.exec(request)).rejects.toMatchObject({ code: "InvalidParams" });
    }
    const many = Array.from({ length: 32 }, () => client.exec(sh("cat", { stdin: Buffer.from("x") })));
    await expect(client.exec(sh("true"))).rejects.toMatchObject({ code: "QuotaExceeded" });
    for (const { stdout } of await Promise.all(many)) expect(String(stdout)).toBe("x");
  });

  it("writes and reads files, and nothing that is none", async () => {
    const client = await prepared();
    const bytes = Buffer.alloc(1_300_000, "abc");
    await client.write("deep/er/a.txt", bytes, 0o600);
    await client.write("deep/er/a.txt", bytes.subarray(3), 0o755);
    expect((await client.read("deep/er/a.txt", 2_000_000)).equals(bytes.subarray(3))).toBe(true);
    expect(await readFile(join(dir, "deep/er/a.txt"), "latin1")).toHaveLength(1_299_997);
    await client.write("empty", Buffer.alloc(0));
    expect(await client.read("empty", 0)).toHaveLength(0);
    await expect(client.read("deep/er/a.txt", 1000)).rejects.toMatchObject({ code: "PayloadTooLarge" });
    await expect(client.read("none", 1000)).rejects.toMatchObject({ code: "NotFound" });
    await expect(client.read(".", 1000)).rejects.toMatchObject({ code: "InvalidParams" });
    await symlink("/etc/hosts", join(dir, "link"));
    await expect(client.read("link", 100_000)).rejects.toMatchObject({ code: "Forbidden" });
    await client.exec(sh("mkfifo pipe"));
    await expect(client.read("pipe", 1000)).rejects.toMatchObject({ code: "InvalidParams" });
  });

  it("[SB-micro] after freezing it hears only who begins anew, and wants entropy again", async () => {
    const client = await prepared();
    const running = client.exec(sh("sleep 1000"));
    await client.freeze();
    expect(await running).toMatchObject({ code: null, signal: "SIGKILL" });
    // Half a frame of somebody who is gone.
    stream.write(encodeJson({ op: "ping", id: 1 }).subarray(0, 9));
    const next = await connect();
    await expect(next.exec(sh("true"))).rejects.toMatchObject({ code: "InvalidParams" });
    await next.prepare();
    expect(await next.exec(sh("true"))).toMatchObject({ code: 0 });
  });

  it("[SB-micro] a host that reads nothing makes it wait, not grow", async () => {
    const client = await prepared();
    await client.freeze();
    stream.removeAllListeners("data");
    stream.pause();
    stream.write(syncFrame(Buffer.alloc(NONCE_BYTES, 1)));
    stream.write(
      encodeJson({ op: "prepare", id: 1, entropy: Buffer.alloc(64).toString("base64"), now_ms: 1 }),
    );
    stream.write(
      encodeJson({ op: "exec", id: 2, argv: ["sh", "-c", "yes"], env: {}, cwd: dir, stdin: false }),
    );
    const facts = (file: string) => readFile(`/proc/${agent.pid}/${file}`, "utf8");
    // It has stopped reading the program once its pipe to us is full and 256 KiB wait behind that.
    const written = async () => Number(/wchar: (\d+)/.exec(await facts("io"))?.[1]);
    let last = -1;
    await until(async () => {
      const now = await written();
      const still = now > 100_000 && now === last && /State:\s+S/.test(await facts("status"));
      last = now;
      return still;
    });
    const kib = Number(/VmRSS:\s+(\d+)/.exec(await facts("status"))?.[1]);
    expect(kib).toBeLessThan(40 * 1024);
  });

  it("[SB-micro] garbage from the host never ends it: it complains, and hears who begins anew", async () => {
    const nonce = Buffer.alloc(NONCE_BYTES, 2);
    await (await connect()).freeze();
    stream.on("data", () => undefined);
    const part = fc.oneof(
      fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes)),
      fc.jsonValue().map((value) => encodeJson([value])),
      fc
        .record({ id: fc.jsonValue(), op: fc.constantFrom("exec", "kill", "read", "write", "x") })
        .map(encodeJson),
      fc
        .record({ argv: fc.jsonValue(), env: fc.jsonValue(), limits: fc.jsonValue(), data: fc.jsonValue() })
        .map((facts) => encodeJson({ id: 3, op: "exec", cwd: "/", ...facts })),
      fc
        .record({ target: fc.jsonValue(), signal: fc.jsonValue(), op: fc.constantFrom("kill", "stats") })
        .map(encodeJson),
      fc.constant(encodeStdin(3, Buffer.from("x"))),
      fc.constant(
        encodeJson({ id: 4, op: "prepare", entropy: Buffer.alloc(64).toString("base64"), now_ms: 1 }),
      ),
    );
    const session = fc
      .array(part, { maxLength: 12 })
      .map((parts) => Buffer.concat([syncFrame(nonce), ...parts]));
    await fc.assert(
      fc.asyncProperty(session, async (bytes) => {
        stream.write(bytes);
        // The end of whatever frame may still be open.
        stream.write(Buffer.alloc(1100));
        expect(agent.exitCode).toBeNull();
      }),
      { numRuns: 100 },
    );
    stream.write(Buffer.alloc(1024 * 1024 + 16));
    stream.removeAllListeners("data");
    const client = await prepared();
    expect(await client.exec(sh("echo fine"))).toMatchObject({ stdout: Buffer.from("fine\n") });
  });
});
