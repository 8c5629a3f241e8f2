import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openForTest, silent, type TestSandboxes } from "../../testing/harness.ts";
import { assemble, w } from "../../testing/wasm-assembler.ts";
import { memoryFiles } from "../../testing/wasm-files.ts";
import {
  BUFFER_AT,
  cdsModule,
  copyProgram,
  ECHO_PROGRAM,
  KIT,
  PATH_AT,
} from "../../testing/wasm-programs.ts";
import { WasmEngine } from "./engine.ts";
import type { WasmSpec } from "./types.ts";

let opened: TestSandboxes;
let engine: WasmEngine;
beforeAll(async () => {
  opened = await openForTest();
  engine = await WasmEngine.open({ host: opened.sandboxes, log: silent, spare: false });
});
afterAll(async () => {
  await engine.close();
  await opened[Symbol.asyncDispose]();
});

const load = (bytes: Uint8Array, more: Partial<WasmSpec> = {}) =>
  engine.start({ domain: "one", bytes, ...more });
const kit = (more: Partial<WasmSpec> = {}) => load(KIT, more);
const byId = (one: { id: string }, other: { id: string }) => (one.id < other.id ? -1 : 1);
const failing = (code: string, details: Record<string, unknown> = {}) =>
  expect.objectContaining({ code, details: expect.objectContaining(details) });

describe("values", () => {
  it("go in and out as JSON can write them", async () => {
    await using module = await kit();
    const call = async (name: string, ...args: (number | string)[]) =>
      (await module.call(name, args)).results;
    expect(await call("add", 2, 40)).toEqual([42]);
    expect(await call("add", 2 ** 31 - 1, 1)).toEqual([-(2 ** 31)]);
    expect(await call("add", 2 ** 32 - 1, 0)).toEqual([-1]);
    expect(await call("add64", "9223372036854775807", "1")).toEqual(["-9223372036854775808"]);
    expect(await call("pair")).toEqual([-1, "4611686018427387904"]);
    for (const value of [1.5, "NaN", "Infinity", "-Infinity", "-0", 0]) {
      expect(await call("same64", value)).toEqual([value]);
      expect(await call("same32", value)).toEqual([value]);
    }
    expect(await call("same32", 0.1)).toEqual([Math.fround(0.1)]);
  });

  it.each<[string, (number | string)[], string]>([
    ["nothing", [], "no function"],
    ["counter", [], "no function"],
    ["\0metered.fuel", [], "no function"],
    ["add", [1], "takes 2 arguments"],
    ["add", [1, 2, 3], "takes 2 arguments"],
    ["add", [1, 1.5], "Argument 1"],
    ["add", [2 ** 32, 1], "Argument 0"],
    ["add", ["1", 1], "Argument 0"],
    ["add64", [1, "1"], "Argument 0"],
    ["add64", ["1", "1x"], "Argument 1"],
    ["add64", ["1", "18446744073709551616"], "Argument 1"],
    ["same64", ["many"], "Argument 0"],
    ["same32", [1e39], "Argument 0"],
    ["vector", [0], "v128"],
    ["reference", [0], "externref"],
  ])("are refused by their place: %s(%j)", async (name, args, message) => {
    await using module = await kit();
    await expect(module.call(name, args)).rejects.toThrow(message);
    await expect(module.call(name, args)).rejects.toEqual(failing("InvalidParams"));
    expect(module.alive).toBe(true);
  });
});

describe("what goes wrong inside", () => {
  it("is told as what it is, and the module can be called again", async () => {
    await using module = await kit();
    const traps: [string, number[], string][] = [
      ["fail", [], "unreachable"],
      ["divide", [1, 0], "divide by zero"],
      ["divide", [-(2 ** 31), -1], "integer overflow"],
      ["peek", [65_536], "memory out of bounds"],
      ["deep", [0], "stack overflow"],
    ];
    for (const [name, args, kind] of traps) {
      await expect(module.call(name, args)).rejects.toEqual(failing("WasmTrap", { kind }));
      expect((await module.call("add", [1, 1])).results).toEqual([2]);
    }
  });

  it("the same call uses the same fuel, and too little ends the module", async () => {
    await using module = await kit();
    const used = [await module.call("count"), await module.call("count")].map(({ fuelUsed }) => fuelUsed);
    expect(used[0]).toBe(used[1]);
    const fuel = used[0] ?? 0;
    expect((await module.call("count", [], { fuel })).results).toEqual([3]);
    await expect(module.call("count", [], { fuel: fuel - 1 })).rejects.toEqual(
      failing("OutOfFuel", { fuel: fuel - 1, used: fuel }),
    );
    await expect(module.call("count")).rejects.toEqual(failing("Unavailable"));
    expect(module.alive).toBe(false);
    expect(engine.list()).not.toContain(module);
  });

  it("runs out of time, whatever it does", async () => {
    for (const [name, args] of [
      ["spin", []],
      ["sleep", ["3600000000000"]],
    ] as const) {
      await using module = await kit();
      const call = module.call(name, args, { fuel: 1e15, timeoutMs: 200 });
      await expect(call).rejects.toEqual(failing("Timeout", { timeoutMs: 200 }));
      expect(module.alive).toBe(false);
    }
  });

  it("is cancelled at any moment", async () => {
    await using module = await kit();
    const stop = new AbortController();
    const running = module.call("spin", [], { fuel: 1e15, signal: stop.signal });
    const waiting = module.call("add", [1, 1]);
    waiting.catch(() => undefined);
    await new Promise((resolve) => setTimeout(resolve, 100));
    stop.abort();
    await expect(running).rejects.toEqual(failing("Cancelled"));
    await expect(waiting).rejects.toEqual(failing("Unavailable"));
    await expect(kit({ signal: AbortSignal.abort() })).rejects.toEqual(failing("Cancelled"));
  });

  it("hostile arguments of host functions hurt only itself", async () => {
    await using module = await kit();
    for (const at of [0, -1, 2 ** 31 - 1, 65_535]) {
      const outcome = await module.call("wild", [at]).catch((error: { code: string }) => error.code);
      expect(outcome === "WasmTrap" || (typeof outcome === "object" && outcome.results[0] !== 0)).toBe(true);
    }
    expect((await module.call("add", [1, 1])).results).toEqual([2]);
  });
});

describe("loading", () => {
  it.each<[string, Uint8Array, string]>([
    ["noise", new Uint8Array([1, 2, 3]), "no WebAssembly module"],
    [
      "a module of wrong types",
      assemble({ functions: [{ name: "f", results: ["i32"], code: w.f64(1) }] }),
      "broken",
    ],
    ["exceptions", assemble({ functions: [{ code: [0x1f, 0x40, 1, 2, 0, 0x0b] }] }), "exception handling"],
    ["an unknown import", assemble({ imports: [{ module: "env", name: "puts" }] }), '"env.puts"'],
    [
      "an import called like what every object has",
      assemble({ imports: [{ module: "__proto__", name: "toString" }] }),
      "__proto__",
    ],
  ])("refuses %s", async (_what, bytes, message) => {
    const loading = load(bytes);
    await expect(loading).rejects.toEqual(failing("InvalidModule"));
    await expect(loading).rejects.toThrow(message);
  });

  it("tells what is exported, and nothing of what was put in", async () => {
    await using module = await kit();
    expect(module.exports.find(({ name }) => name === "add64")).toEqual({
      name: "add64",
      kind: "function",
      params: ["i64", "i64"],
      results: ["i64"],
    });
    expect(module.exports.map(({ kind }) => kind).sort()).toContain("memory");
    expect(module.exports.filter(({ name }) => name.includes("metered"))).toEqual([]);
  });

  it("compiles the same bytes once per domain", async () => {
    const bytes = assemble({ functions: [{ name: "f", results: ["i32"], code: w.i32(77) }] });
    await using first = await load(bytes);
    await using second = await load(bytes);
    expect([first.cached, second.cached]).toEqual([false, true]);
    expect((await second.call("f")).results).toEqual([77]);
  });

  it("runs a start function and _initialize on fuel", async () => {
    const count = w.globalSet(0, w.add(w.globalGet(0), w.i32(1)));
    const bytes = assemble({
      globals: [{ type: "i32", mutable: true, init: w.i32(0) }],
      functions: [
        { code: count },
        { name: "_initialize", code: count },
        { name: "get", results: ["i32"], code: w.globalGet(0) },
      ],
      start: 0,
    });
    await using module = await load(bytes);
    expect((await module.call("get")).results).toEqual([2]);
    const endless = assemble({ functions: [{ code: w.loop(w.br(0)) }], start: 0 });
    await expect(load(endless, { fuel: 1000 })).rejects.toEqual(failing("OutOfFuel", { fuel: 1000 }));
  });
});

describe("memory", () => {
  it("grows as far as the limit, which can be set lower and higher while it runs", async () => {
    await using module = await kit({ memoryBytes: 3 * 65_536 + 1 });
    const grow = async (pages: number) => (await module.call("grow", [pages])).results[0];
    expect(module.memoryLimitBytes).toBe(3 * 65_536);
    expect([await grow(2), await grow(1)]).toEqual([1, -1]);
    expect(module.memoryBytes).toBe(3 * 65_536);
    await module.setMemoryLimit(5 * 65_536);
    expect([await grow(2), await grow(1)]).toEqual([3, -1]);
    const [used, allowed] = [5 * 65_536, 4 * 65_536];
    await expect(module.setMemoryLimit(allowed)).rejects.toEqual(failing("InvalidParams", { used, allowed }));
    for (const wrong of [0, -1, Number.NaN, 1.5, 2 ** 40]) {
      await expect(module.setMemoryLimit(wrong)).rejects.toEqual(failing("InvalidParams"));
    }
    await expect(load(assemble({ memory: { min: 4 } }), { memoryBytes: 65_536 })).rejects.toEqual(
      failing("InvalidParams", { needed: 4 * 65_536 }),
    );
  });

  it("of one domain has a limit for all its modules together", async () => {
    await using first = await kit({ memoryBytes: 400 * 1024 * 1024, domain: "one" });
    await expect(kit({ memoryBytes: 200 * 1024 * 1024 })).rejects.toEqual(failing("QuotaExceeded"));
    await expect(first.setMemoryLimit(600 * 1024 * 1024)).rejects.toEqual(failing("InvalidParams"));
    await first.setMemoryLimit(65_536);
    await using second = await kit({ memoryBytes: 200 * 1024 * 1024 });
    expect(second.alive).toBe(true);
  });
});

describe("WASI", () => {
  it("gives a program its arguments, environment and standard input, and takes what it writes", async () => {
    await using program = await load(ECHO_PROGRAM, {
      args: ["größe", "b"],
      env: { NAME: "ü" },
      stdin: Buffer.from("from outside"),
    });
    const { stdout, stderr, exitCode } = await program.call("_start");
    expect(stdout).toBe("größe\0b\0NAME=ü\0");
    expect(stderr).toBe("from outside");
    expect(exitCode).toBeUndefined();
  });

  it("tells how a program ended", async () => {
    await using module = await kit();
    expect(await module.call("exit", [7])).toMatchObject({ exitCode: 7, results: [] });
    expect((await module.call("now")).results).toEqual([0]);
    expect((await module.call("peek", [36])).results).not.toEqual([0]);
    expect((await module.call("sleep", ["1000000"])).results).toEqual([0]);
  });

  it("bounds what is written, and ends a flood", async () => {
    await using module = await kit({ memoryBytes: 4 * 1024 * 1024 });
    expect(await module.call("print", [1, 8])).toMatchObject({ stdout: "Grüße\n", stdoutTruncated: false });
    await module.call("grow", [40]);
    const much = await module.call("print", [2, 2 * 1024 * 1024]);
    expect(much).toMatchObject({ stderrTruncated: true, stdoutTruncated: false });
    expect(much.stderr.length).toBeLessThanOrEqual(1024 * 1024);
    const bytes = assemble({
      imports: [
        {
          module: "wasi_snapshot_preview1",
          name: "fd_write",
          params: ["i32", "i32", "i32", "i32"],
          results: ["i32"],
        },
      ],
      memory: { min: 16 },
      functions: [
        {
          name: "flood",
          code: [
            ...w.store(0, w.i32(4), w.i32(1_000_000)),
            ...w.loop([...w.drop(w.call(0, w.i32(1), w.i32(0), w.i32(1), w.i32(8))), ...w.br(0)]),
          ],
        },
      ],
    });
    await using flood = await load(bytes);
    await expect(flood.call("flood")).rejects.toEqual(failing("PayloadTooLarge"));
    expect(flood.alive).toBe(false);
  });

  it("shows the project's files at /project, bytes exactly as they are", async () => {
    const content = Uint8Array.from({ length: 20_000 }, (_, index) => index % 251);
    const files = memoryFiles({ "in/größe.bin": content });
    await using program = await load(copyProgram("in/größe.bin", "./out/copy.bin"), { files });
    expect(await program.call("_start")).toMatchObject({ exitCode: 0 });
    expect(files.files.get("out/copy.bin")).toEqual(content);
  });

  it.each<[string, string, boolean, number]>([
    ["in", "../out", false, 76],
    ["../../etc/passwd", "x", false, 76],
    ["/etc/passwd", "x", false, 76],
    ["a\0b", "x", false, 28],
    ["nothing", "x", false, 44],
    ["in", "x", true, 69],
  ])("keeps to them: %j to %j, read-only %s", async (from, to, readOnly, errno) => {
    const files = memoryFiles({ in: "content" }, { readOnly });
    await using program = await load(copyProgram(from, to), { files });
    expect(await program.call("_start")).toMatchObject({ exitCode: errno });
    expect([...files.files.keys()]).toEqual(["in"]);
    expect(files.asked.filter((each) => each.includes(".."))).toEqual([]);
  });

  it("has no directory without files", async () => {
    await using program = await load(copyProgram("in", "out"));
    expect(await program.call("_start")).toMatchObject({ exitCode: 8 });
  });
});

describe("host functions", () => {
  it("read, write and list the project's files", async () => {
    const files = memoryFiles({ "dir/a": "hello", "dir/sub/b": "x" });
    await using module = await load(cdsModule("dir/adir/new"), { files });
    const result = async (name: string, ...args: number[]) => (await module.call(name, args)).results[0];
    const [a, fresh] = [
      [PATH_AT, 5],
      [PATH_AT + 5, 7],
    ] as const;
    expect(await result("file_size", ...a)).toBe(5);
    expect(await result("file_read", ...a, BUFFER_AT, 3)).toBe(5);
    expect(await result("peek", BUFFER_AT + 2)).toBe("l".charCodeAt(0));
    expect(await result("peek", BUFFER_AT + 3)).toBe(0);
    expect(await result("file_write", ...fresh, BUFFER_AT, 3)).toBe(3);
    expect(Buffer.from(files.files.get("dir/new") ?? []).toString()).toBe("hel");
    expect(await result("file_list", PATH_AT, 3, BUFFER_AT, 100)).toBe("a\nsub/\nnew\n".length);
    expect(await result("file_size", PATH_AT, 3)).toBe(-31);
    expect(await result("file_size", PATH_AT, 4)).toBe(-31);
    expect(await result("file_read", ...fresh, -1, 100)).toBe(-21);
    expect(await result("file_read", PATH_AT, -1, BUFFER_AT, 1)).toBe(-37);
  });

  it("fail as the files do", async () => {
    const files = {
      ...memoryFiles({ a: "12345678" }, { maxBytes: 4 }),
      list: () => Promise.reject(new Error("secret")),
    };
    await using module = await load(cdsModule("a"), { files });
    const at = [PATH_AT, 1, BUFFER_AT, 8];
    expect((await module.call("file_read", at)).results).toEqual([-22]);
    expect((await module.call("file_write", at)).results).toEqual([-22]);
    expect((await module.call("file_list", at)).results).toEqual([-29]);
  });
});

describe("an engine", () => {
  it("refuses specs that make no sense", async () => {
    const wrong: Partial<WasmSpec>[] = [
      { domain: "" },
      { memoryBytes: 0 },
      { memoryBytes: Number.NaN },
      { fuel: 0 },
      { fuel: -1 },
      { timeoutMs: 0 },
      { timeoutMs: Number.POSITIVE_INFINITY },
      { args: ["a\0b"] },
      { env: { "A=B": "x" } },
      { args: Array.from({ length: 300 }, () => "x") },
    ];
    for (const more of wrong) await expect(kit(more)).rejects.toEqual(failing("InvalidParams"));
    await expect(load(new Uint8Array(40 * 1024 * 1024))).rejects.toEqual(failing("PayloadTooLarge"));
  });

  it("keeps calls of one module in order, and refuses when too many wait", async () => {
    await using module = await kit();
    const calls = Array.from({ length: 20 }, () => module.call("count"));
    const settled = await Promise.allSettled(calls);
    const counts = settled.flatMap((each) => (each.status === "fulfilled" ? each.value.results : []));
    expect(counts).toEqual(Array.from({ length: 16 }, (_, index) => index + 1));
    const refused = settled.flatMap((each) => (each.status === "rejected" ? [each.reason] : []));
    expect(refused).toEqual(Array.from({ length: 4 }, () => failing("QuotaExceeded")));
  });

  it("has one process per domain, which ends when it is idle", async () => {
    const own = await WasmEngine.open({ host: opened.sandboxes, log: silent, spare: true, idleMs: 50 });
    const probe = await own.probe();
    expect(probe).toEqual({ available: true, tier: null, reasons: [] });
    const modules = await Promise.all(["a", "a", "b"].map((domain) => own.start({ domain, bytes: KIT })));
    expect(own.list().toSorted(byId)).toEqual(modules.toSorted(byId));
    await Promise.all(modules.map((module) => module.close()));
    expect(own.list()).toEqual([]);
    await expect.poll(() => own.processes).toBe(0);
    await own.close();
    await expect(own.start({ domain: "a", bytes: KIT })).rejects.toEqual(failing("Unavailable"));
  });
});
