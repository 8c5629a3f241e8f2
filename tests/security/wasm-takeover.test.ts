import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { WasmEngine } from "#sandbox/engines/wasm/engine.ts";
import { openForTest, silent, type TestSandboxes } from "#sandbox/testing/harness.ts";
import { memoryFiles } from "#sandbox/testing/wasm-files.ts";
import { impostor } from "#sandbox/testing/wasm-impostor.ts";
import { KIT } from "#sandbox/testing/wasm-programs.ts";

/** Group 21, the other half: the process that runs modules is an enemy's. */

let opened: TestSandboxes;
beforeAll(async () => {
  opened = await openForTest();
});
afterAll(async () => {
  await opened[Symbol.asyncDispose]();
});

const failing = (code: string, details: Record<string, unknown> = {}) =>
  expect.objectContaining({ code, details: expect.objectContaining(details) });

describe("a host process that a module has taken over", () => {
  /** An engine whose host is this script instead. */
  const taken = async (script: string) =>
    WasmEngine.open({ host: impostor(opened.sandboxes, script), log: silent, spare: false });

  it.each<[string, string]>([
    ["garbage", 'process.stdout.write("HTTP/1.1 200 OK\\r\\n\\r\\n".repeat(100));'],
    ["a length of 4 GB", "process.stdout.write(Buffer.alloc(8, 255));"],
    ["a header that is no JSON", 'say("{");'],
    ["a header that is no object", 'say("[1]");'],
    ["a header that nests deep", 'say("[".repeat(100000));'],
    [
      "a header that is not UTF-8",
      "process.stdout.write(Buffer.concat([Buffer.from([1,0,0,0,0,0,0,0]), Buffer.from([255])]));",
    ],
    ["a message that there is not", 'say({ type: "shutdown" });'],
    ["an answer to nothing", 'say({ type: "done", id: 99, outcome: {} });'],
    ["nothing, and ends", "process.exit(0);"],
    ["that it is ready, twice", "ready(); ready();"],
  ])("by saying %s, hurts nobody", async (_what, script) => {
    const own = await taken(script);
    const loading = own.start({ domain: "a", bytes: KIT, timeoutMs: 1000 });
    await expect(loading).rejects.toEqual(failing("Unavailable"));
    await expect.poll(() => own.processes).toBe(0);
    expect(own.list()).toEqual([]);
    await own.close();
  });

  const outcome = (more: string) =>
    `{ results: [], fuelUsed: 1, memoryBytes: 0, exitCode: null, stdoutBytes: 0, stdoutTruncated: false, stderrTruncated: false, error: null, dead: false, ${more} }`;
  it.each<[string, string]>([
    ["silence", "ready();"],
    [
      "more output than it sends",
      `ready(); onOrder(() => say({ type: "done", id: 1, outcome: ${outcome("stdoutBytes: 1000")} }));`,
    ],
    [
      "an error that there is not",
      `ready(); onOrder(() => say({ type: "done", id: 1, outcome: ${outcome('error: { code: "Forbidden", message: "x", details: {} }')} }));`,
    ],
    [
      "details with an object in them",
      `ready(); onOrder(() => say({ type: "done", id: 1, outcome: ${outcome('error: { code: "WasmTrap", message: "x", details: { a: { b: 1 } } }')} }));`,
    ],
    [
      "the same answer twice",
      `ready(); onOrder(() => { for (const n of [1, 2]) say({ type: "done", id: 1, outcome: ${outcome("")}, loaded: { exports: [], cached: false } }); });`,
    ],
    [
      "requests for files without end",
      `ready(); onOrder(() => { for (let n = 0; n < 1000; n += 1) say({ type: "file", id: n, instance: "x", operation: "read", path: "a" }); });`,
    ],
    [
      "a flood of bytes",
      "ready(); onOrder(() => { const more = () => process.stdout.write(Buffer.alloc(65536, 1), more); more(); });",
    ],
  ])("by answering with %s, hurts nobody", async (_what, script) => {
    const own = await taken(script);
    const loading = own.start({ domain: "a", bytes: KIT, timeoutMs: 500, files: memoryFiles({}) });
    const used = loading.then((module) => module.call("add", [1, 1]));
    await expect(used).rejects.toMatchObject({
      code: expect.stringMatching(/^(Unavailable|Timeout|InvalidParams)$/),
    });
    await own.close();
    expect(own.processes).toBe(0);
    expect(own.list()).toEqual([]);
  });

  it("cannot make results of another type, nor paths that lead out", async () => {
    const exports = '[{ name: "f", kind: "function", params: [], results: ["i32"] }]';
    const files = memoryFiles({ a: "x" });
    const own = await taken(`
      ready();
      let orders = 0;
      onOrder(() => {
        orders += 1;
        if (orders === 1) say({ type: "done", id: 1, outcome: ${outcome("")}, loaded: { exports: ${exports}, cached: false } });
        if (orders !== 2) return;
        for (const path of ["../a", "/a", "a/../../b", "a//b", "a\\0"]) say({ type: "file", id: 1, instance, operation: "write", path }, Buffer.from("evil"));
        setTimeout(() => say({ type: "done", id: 2, outcome: ${outcome('results: ["<script>"]')} }), 200);
      });
      let instance = "";
      process.stdin.on("data", (chunk) => { instance ||= /wsm_\\w+/.exec(chunk.toString("latin1"))?.[0] ?? ""; });
    `);
    const module = await own.start({ domain: "a", bytes: KIT, files });
    await expect(module.call("f")).rejects.toEqual(failing("Unavailable"));
    expect(files.asked).toEqual([]);
    expect(module.alive).toBe(false);
    await own.close();
  });

  it("sees nothing of the server, its files, other processes or the network", async () => {
    const secret = "SECRET_OF_THE_SERVER";
    process.env[secret] = "s3cret";
    try {
      const own = await taken(`
        const fs = require("fs"), net = require("net");
        const attempt = (act) => { try { return act(); } catch (error) { return error.code; } };
        const found = {
          names: Object.keys(process.env),
          environ: attempt(() => fs.readFileSync("/proc/1/environ", "latin1")),
          data: attempt(() => fs.readdirSync(${JSON.stringify(opened.dataDir)})),
          root: fs.readdirSync("/"),
          write: ["/x", "/opt/wasm/x", "/opt/wasm/host/main.ts"].map((path) => attempt(() => fs.writeFileSync(path, "x"))),
          pids: fs.readdirSync("/proc").filter((name) => /^[0-9]+$/.test(name)).length,
          interfaces: Object.keys(require("os").networkInterfaces()),
        };
        net.connect(80, "192.0.2.1").on("error", (error) => {
          ready();
          onOrder(() => say({ type: "done", id: 1, outcome: ${outcome('error: { code: "WasmTrap", message: JSON.stringify({ ...found, net: error.code }), details: {} }')} }));
        });
      `);
      const error = await own.start({ domain: "a", bytes: KIT }).catch((thrown: Error) => thrown);
      const seen = JSON.parse((error as Error).message) as Record<string, string | string[] | number>;
      expect(JSON.stringify(seen)).not.toContain(secret);
      expect((seen.names as string[]).sort()).toEqual([
        "HOME",
        "LANG",
        "LOGNAME",
        "PATH",
        "PWD",
        "TMPDIR",
        "USER",
      ]);
      expect(seen.data).toBe("ENOENT");
      for (const code of seen.write as string[]) expect(["EROFS", "EACCES"]).toContain(code);
      expect(seen.pids).toBeLessThan(4);
      expect(seen.interfaces).toEqual(["lo"]);
      expect(seen.net).toMatch(/ENETUNREACH|EHOSTUNREACH|ECONNREFUSED/);
      await own.close();
    } finally {
      delete process.env[secret];
    }
  });
});
