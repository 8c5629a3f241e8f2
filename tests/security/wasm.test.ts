import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { WasmEngine } from "#sandbox/engines/wasm/engine.ts";
import type { WasmFiles, WasmSpec } from "#sandbox/engines/wasm/types.ts";
import { isRunning, readProcess } from "#sandbox/process-tree.ts";
import { openForTest, silent, type TestSandboxes, until } from "#sandbox/testing/harness.ts";
import { assemble, type Code, type TestModule, w } from "#sandbox/testing/wasm-assembler.ts";
import { memoryFiles } from "#sandbox/testing/wasm-files.ts";
import { BUFFER_AT, cdsModule, KIT, PATH_AT } from "#sandbox/testing/wasm-programs.ts";

/** Group 21: modules that attack the engine, each other, or the server. */

const MIB = 1024 * 1024;
const DETERMINISM = fileURLToPath(new URL("../../sandbox/testing/wasm-determinism.ts", import.meta.url));

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
  engine.start({ domain: "attacker", bytes, ...more });
const attack = (code: Code, more: TestModule = {}) =>
  assemble({ memory: { min: 1 }, ...more, functions: [{ name: "attack", code }, ...(more.functions ?? [])] });
const failing = (code: string, details: Record<string, unknown> = {}) =>
  expect.objectContaining({ code, details: expect.objectContaining(details) });

describe("a module that uses up all it can get", () => {
  const endless = w.loop(w.br(0));
  const growing = w.loop([...w.drop(w.memoryGrow(w.i32(1))), ...w.br(0)]);
  it.each<[string, Uint8Array, string, Record<string, unknown>]>([
    ["by a loop", attack(endless), "OutOfFuel", {}],
    ["by a loop without a way round", attack([0x03, 0x40, 0x0c, 0, 0x0b]), "OutOfFuel", {}],
    ["by calls without end", attack(w.call(0)), "WasmTrap", { kind: "stack overflow" }],
    [
      "by calls of each other",
      attack(w.call(1), { functions: [{ code: w.call(0) }] }),
      "WasmTrap",
      { kind: "stack overflow" },
    ],
    [
      "by two calls in each call",
      attack([...w.block(w.call(1, w.i32(60)))], {
        functions: [
          {
            params: ["i32"],
            code: w.if(w.get(0), [
              ...w.call(1, w.sub(w.get(0), w.i32(1))),
              ...w.call(1, w.sub(w.get(0), w.i32(1))),
            ]),
          },
        ],
      }),
      "OutOfFuel",
      {},
    ],
    ["by tail calls", attack([0x12, 0]), "OutOfFuel", {}],
    [
      "by calls through a table",
      attack(w.callIndirect(0, w.i32(0)), { table: [0] }),
      "WasmTrap",
      { kind: "stack overflow" },
    ],
    ["by growing its memory", attack(growing), "OutOfFuel", {}],
    [
      "by growing it with all at once",
      attack(w.loop([...w.drop(w.memoryGrow(w.i32(-1))), ...w.br(0)])),
      "OutOfFuel",
      {},
    ],
    [
      "by filling its memory",
      attack(w.loop([...w.memoryFill(w.i32(0), w.i32(1), w.i32(65_536)), ...w.br(0)])),
      "OutOfFuel",
      {},
    ],
    [
      "by copying its memory",
      attack(w.loop([...w.memoryCopy(w.i32(0), w.i32(1), w.i32(65_535)), ...w.br(0)])),
      "OutOfFuel",
      {},
    ],
    [
      "by growing a table",
      attack(w.loop([...w.drop(w.tableGrow(0, w.refNull("funcref"), w.i32(1000))), ...w.br(0)]), {
        tables: [{ min: 0 }],
      }),
      "OutOfFuel",
      {},
    ],
  ])("%s", async (_how, bytes, code, details) => {
    await using victim = await load(KIT);
    await using module = await load(bytes);
    const fuel = 100_000_000;
    const attempts = [1, 2].map(() => module.call("attack", [], { fuel }).catch((error: unknown) => error));
    const [first] = await Promise.all(attempts);
    expect(first).toEqual(failing(code, details));
    expect((await victim.call("add", [20, 22])).results).toEqual([42]);
  });

  it("by its start function, when it is loaded", async () => {
    await expect(load(attack(endless, { start: 0 }), { fuel: 1_000_000 })).rejects.toEqual(
      failing("OutOfFuel"),
    );
    await expect(load(attack(endless, { start: 0 }), { fuel: 1e15, timeoutMs: 300 })).rejects.toEqual(
      failing("Timeout"),
    );
    await expect(load(attack(w.call(0), { start: 0 }))).rejects.toEqual(
      failing("WasmTrap", { kind: "stack overflow" }),
    );
  });

  it.each<[string, Uint8Array]>([
    ["catching everything around a trap (try_table)", attack([0x1f, 0x40, 1, 2, 0, ...endless, 0x0b])],
    ["catching everything around a trap (try)", attack([0x06, 0x40, ...endless, 0x19, 0x0b])],
    ["shared memory", attack([0xfe, 0x03, 0x00])],
    [
      "too many locals",
      assemble({
        functions: [
          { name: "f", code: w.nop, locals: Array.from({ length: 50_000 }, () => "v128" as const) },
        ],
      }),
    ],
    ["too large a table", attack(w.nop, { tables: [{ min: 10_000_000 }] })],
    ["too much memory", attack(w.nop, { memory: { min: 60_000 } })],
    ["raising its own fuel", attack(w.globalSet(0, w.i64(1n << 60n)))],
    ["a host function that is not offered", assemble({ imports: [{ module: "cds", name: "constructor" }] })],
  ])("is refused when it asks for %s", async (_what, bytes) => {
    await expect(load(bytes)).rejects.toEqual(failing("InvalidModule"));
  });

  it("cannot put data where there is no memory", async () => {
    const bytes = attack(w.nop, { data: [{ at: 65_530, bytes: "longer than that" }] });
    await expect(load(bytes)).rejects.toEqual(failing("WasmTrap", { kind: "memory out of bounds" }));
  });

  it("takes its domain's memory, and nobody else's", async () => {
    await using victim = await engine.start({ domain: "other", bytes: KIT });
    const touch = assemble({
      memory: { min: 1 },
      functions: [
        {
          name: "attack",
          locals: ["i32"],
          code: w.loop([
            ...w.set(0, w.memoryGrow(w.i32(16))),
            ...w.if(w.ltS(w.get(0), w.i32(0)), w.return()),
            ...w.memoryFill(w.shl(w.get(0), w.i32(16)), w.i32(1), w.i32(MIB)),
            ...w.br(0),
          ]),
        },
      ],
    });
    const memoryBytes = 200 * MIB;
    await using module = await load(touch, { memoryBytes, domain: "greedy" });
    const { memoryBytes: taken } = await module.call("attack", [], { timeoutMs: 100_000 });
    expect(taken).toBeGreaterThan(memoryBytes - 2 * MIB);
    expect(taken).toBeLessThanOrEqual(memoryBytes);
    await expect(load(KIT, { domain: "greedy", memoryBytes: 400 * MIB })).rejects.toEqual(
      failing("QuotaExceeded"),
    );
    expect((await victim.call("add", [1, 1])).results).toEqual([2]);
  });
});

describe("a module is stopped at the same point, with the same memory and the same fuel left", () => {
  it("however V8 compiles it, in every process", async () => {
    const flags = [[], ["--liftoff-only"], ["--no-liftoff"], ["--no-wasm-dynamic-tiering"]];
    const outputs: string[] = [];
    for (const some of flags) {
      const { stdout } = await promisify(execFile)(process.execPath, [...some, DETERMINISM], {
        timeout: 100_000,
      });
      outputs.push(stdout);
    }
    const found = JSON.parse(outputs[0] ?? "{}") as Record<
      string,
      { trap?: string; fuelLeft: number; stackLeft: number }
    >;
    expect(Object.keys(found).length).toBeGreaterThan(20);
    for (const { trap, fuelLeft, stackLeft } of Object.values(found)) {
      if (trap !== undefined) expect(trap).toContain("unreachable");
      if (trap !== undefined) expect(Math.min(fuelLeft, stackLeft)).toBeLessThan(0);
    }
    expect(Object.values(found).filter(({ stackLeft }) => stackLeft < 0).length).toBeGreaterThan(0);
    for (const output of outputs) expect(output).toBe(outputs[0]);
  });
});

describe("host functions", () => {
  it("called again and again while they answer, and after the end, break nothing", async () => {
    const asked = Promise.withResolvers<void>();
    const answer = Promise.withResolvers<Uint8Array>();
    const files: WasmFiles = {
      ...memoryFiles({ a: "x" }),
      read: () => {
        asked.resolve();
        return answer.promise;
      },
    };
    await using victim = await load(cdsModule("a"), { files: memoryFiles({ a: "12345" }) });
    const module = await load(cdsModule("a"), { files });
    const at = [PATH_AT, 1, BUFFER_AT, 100];
    const running = module.call("file_read", at);
    const waiting = module.call("file_read", at);
    waiting.catch(() => undefined);
    await asked.promise;
    expect((await victim.call("file_read", at)).results).toEqual([5]);
    await module.close();
    await expect(running).rejects.toEqual(failing("Cancelled"));
    await expect(waiting).rejects.toEqual(failing("Unavailable"));
    answer.resolve(new Uint8Array(10));
    expect((await victim.call("file_read", at)).results).toEqual([5]);
    await expect(module.call("file_read", at)).rejects.toEqual(failing("Unavailable"));
  });

  it("in a loop cost fuel for what they move", async () => {
    const bytes = assemble({
      imports: [
        { module: "wasi_snapshot_preview1", name: "random_get", params: ["i32", "i32"], results: ["i32"] },
      ],
      memory: { min: 16 },
      functions: [{ name: "attack", code: w.loop([...w.drop(w.call(0, w.i32(0), w.i32(MIB))), ...w.br(0)]) }],
    });
    await using module = await load(bytes);
    await expect(module.call("attack", [], { fuel: 5_000_000 })).rejects.toEqual(failing("OutOfFuel"));
  });

  it("of one module do not reach another one's files", async () => {
    const mine = memoryFiles({ a: "mine" });
    const theirs = memoryFiles({ secret: "theirs" });
    await using other = await engine.start({ domain: "other", bytes: cdsModule("secret"), files: theirs });
    await using module = await load(cdsModule("secret"), { files: mine });
    const at = [PATH_AT, 6, BUFFER_AT, 100];
    expect((await module.call("file_read", at)).results).toEqual([-44]);
    expect((await other.call("file_read", at)).results).toEqual([6]);
    expect(theirs.asked).toEqual(["read secret"]);
  });
});

describe("what is left", () => {
  it("of an engine is nothing, whatever its modules were doing", async () => {
    const own = await openForTest();
    const busy = await WasmEngine.open({ host: own.sandboxes, log: silent });
    const modules = await Promise.all(["a", "b"].map((domain) => busy.start({ domain, bytes: KIT })));
    const calls = modules.map((module) =>
      module
        .call("spin", [], { fuel: 1e15, timeoutMs: 60_000 })
        .catch((error: { code: string }) => error.code),
    );
    const pids = own.sandboxes.run.list().map(({ pid }) => pid);
    const processes = pids.flatMap((pid) => readProcess(pid) ?? []);
    expect(processes.length).toBeGreaterThanOrEqual(2);
    await busy.close();
    for (const code of await Promise.all(calls)) expect(["Cancelled", "Unavailable"]).toContain(code);
    await until(() => processes.filter(isRunning).length === 0);
    await own[Symbol.asyncDispose]();
  });
});
