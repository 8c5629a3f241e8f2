import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { WasmEngine } from "../engines/wasm/engine.ts";
import type { WasmCallOptions, WasmInstance, WasmSpec, WasmValue } from "../engines/wasm/types.ts";
import { isRunning, readProcess } from "../process-tree.ts";
import { openForTest, silent, until } from "../testing/harness.ts";
import { countOf, recordSpans } from "../testing/spans.ts";
import { memoryFiles } from "../testing/wasm-files.ts";
import { cdsModule, copyProgram, ECHO_PROGRAM, KIT } from "../testing/wasm-programs.ts";
import type { Feature, Fixture, FixtureMaker } from "./features.ts";
import { refused } from "./refused.ts";

const PAGE = 65_536;
const OPERATIONS = ["load", "call", "memory_limit", "unload"];

type Part<F extends Feature> = Pick<Fixture["scenarios"], F>;
type Load = (more?: Partial<WasmSpec>) => Promise<WasmInstance>;

/** What it does, and what it says of that which cannot be done. */
function answers(load: Load): Part<"work" | "failure" | "input" | "limits"> {
  return {
    async work() {
      const bytes = Uint8Array.from({ length: 512 }, (_, index) => index % 256);
      const files = memoryFiles({ "Grüße.bin": bytes });
      await using copy = await load({ bytes: copyProgram("Grüße.bin", "Kopie.bin"), files });
      assert.equal((await copy.call("_start")).exitCode, 0);
      assert.deepEqual(files.files.get("Kopie.bin"), bytes);
      await using echo = await load({ bytes: ECHO_PROGRAM, args: ["größer"] });
      assert.equal((await echo.call("_start")).stdout, "größer\0");
      await using kit = await load();
      assert.deepEqual((await kit.call("add", [2, 40])).results, [42]);
    },
    async failure() {
      await using kit = await load();
      for (const [name, args, kind] of [
        ["fail", [], "unreachable"],
        ["divide", [1, 0], "divide by zero"],
        ["peek", [-1], "memory out of bounds"],
      ] as const) {
        await refused(() => kit.call(name, args), "WasmTrap", kind);
      }
      assert.equal((await kit.call("exit", [7])).exitCode, 7);
      assert.deepEqual((await kit.call("add", [1, 1])).results, [2]);
      await refused(() => load({ bytes: new Uint8Array([1, 2, 3]) }), "InvalidModule");
    },
    async input() {
      await using kit = await load();
      const calls: [string, WasmValue[]][] = [
        ["none", []],
        ["add", [1]],
        ["add", ["x", 1]],
        ["add64", [1, "1"]],
      ];
      for (const [name, args] of calls) await refused(() => kit.call(name, args), "InvalidParams");
      for (const more of [{ domain: "" }, { args: ["a\0b"] }, { env: { "": "x" } }]) {
        await refused(() => load(more), "InvalidParams");
      }
    },
    async limits() {
      await using kit = await load();
      for (const value of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
        for (const name of ["memoryBytes", "fuel", "timeoutMs"]) {
          await refused(() => load({ [name]: value }), "InvalidParams");
        }
        const options: WasmCallOptions[] = [{ fuel: value }, { timeoutMs: value }];
        for (const each of options) await refused(() => kit.call("add", [1, 1], each), "InvalidParams");
        await refused(() => kit.setMemoryLimit(value), "InvalidParams");
      }
    },
  };
}

function bounds(load: Load): Part<"memory" | "time" | "output" | "processes" | "disk"> {
  return {
    async memory() {
      await using kit = await load({ memoryBytes: 2 * PAGE });
      const grown = [await kit.call("grow", [1]), await kit.call("grow", [1])].map(
        ({ results }) => results[0],
      );
      assert.deepEqual([grown, kit.memoryBytes], [[1, -1], 2 * PAGE]);
      await kit.setMemoryLimit(3 * PAGE);
      assert.deepEqual((await kit.call("grow", [1])).results, [2]);
      await refused(() => kit.setMemoryLimit(PAGE), "InvalidParams");
    },
    async time() {
      await using spinning = await load();
      await refused(() => spinning.call("spin", [], { fuel: 1e15, timeoutMs: 300 }), "Timeout");
      await using burning = await load();
      await refused(() => burning.call("spin", [], { fuel: 100_000 }), "OutOfFuel");
      assert.deepEqual([spinning.alive, burning.alive], [false, false]);
    },
    async output() {
      await using kit = await load({ memoryBytes: 64 * PAGE });
      await kit.call("grow", [40]);
      const { stdout, stdoutTruncated } = await kit.call("print", [1, 40 * PAGE]);
      assert.equal(stdoutTruncated, true);
      assert.ok(stdout.startsWith("Grüße\n") && stdout.length <= 1024 * 1024);
    },
    processes: "A module has one thread and no means to start another.",
    async disk() {
      const files = memoryFiles({ a: "12345678" }, { maxBytes: 4 });
      await using module = await load({ bytes: cdsModule("a"), files });
      assert.deepEqual((await module.call("file_write", [64, 1, 0, 5])).results, [-22]);
      assert.deepEqual((await module.call("file_write", [64, 1, 0, 4])).results, [4]);
    },
  };
}

function walls(load: Load): Part<"network" | "host" | "environment" | "tenants"> {
  return {
    network:
      "Modules are offered no function that reaches one, and their process has none: tests/security/wasm-takeover.test.ts.",
    async host() {
      const outside = ["/etc/passwd", "../../../../etc/passwd", "a/../../etc/passwd"];
      for (const path of outside) {
        await using program = await load({
          bytes: copyProgram(path, "stolen"),
          files: memoryFiles({ a: "x" }),
        });
        assert.equal((await program.call("_start")).exitCode, 76);
      }
      await using bare = await load({ bytes: copyProgram("a", "b") });
      assert.equal((await bare.call("_start")).exitCode, 8);
    },
    async environment() {
      await using program = await load({ bytes: ECHO_PROGRAM, env: { MINE: "1" } });
      assert.equal((await program.call("_start")).stdout, "MINE=1\0");
    },
    async tenants() {
      for (const domain of ["one", "two"]) {
        await using first = await load({ domain: "one" });
        await using second = await load({ domain });
        await first.call("poke", [512, 4242]);
        assert.deepEqual((await second.call("peek", [512])).results, [0]);
        assert.deepEqual(
          [await first.call("count"), await second.call("count")].map(({ results }) => results),
          [[1], [1]],
        );
      }
    },
  };
}

/** A module whose call does not end, as its files do not answer; `asked` resolves when it has come so far. */
async function waiting(load: Load) {
  const asked = Promise.withResolvers<void>();
  const read = () => {
    asked.resolve();
    return new Promise<undefined>(() => undefined);
  };
  const module = await load({ bytes: cdsModule("a"), files: { ...memoryFiles({}), read } });
  const call = (options: WasmCallOptions) => module.call("file_read", [64, 1, 0, 5], options);
  return { module, asked: asked.promise, call };
}

function lifetime(load: Load, engine: WasmEngine): Part<"cancel" | "list" | "counted"> {
  return {
    async cancel() {
      await using other = await load();
      const stop = new AbortController();
      const [stopped, closed] = [await waiting(load), await waiting(load)];
      const calls = [stopped.call({ signal: stop.signal }), closed.call({})].map((call) =>
        call.then(
          () => "done",
          (error: { code: string }) => error.code,
        ),
      );
      await Promise.all([stopped.asked, closed.asked]);
      stop.abort();
      await closed.module.close();
      assert.deepEqual(await Promise.all(calls), ["Cancelled", "Cancelled"]);
      assert.deepEqual([stopped.module.alive, closed.module.alive], [false, false]);
      assert.deepEqual((await other.call("add", [1, 1])).results, [2]);
    },
    async list() {
      const before = engine.list().length;
      const pair = [await load(), await load()];
      assert.deepEqual(engine.list().slice(before), pair);
      await pair[0]?.close();
      assert.deepEqual(engine.list().slice(before), [pair[1]]);
      await pair[1]?.close();
      assert.equal(engine.list().length, before);
    },
    async counted() {
      const before = await Promise.all(OPERATIONS.map((name) => countOf("wasm", name)));
      const recording = recordSpans();
      const module = await load();
      await module.call("add", [1, 1]);
      await refused(() => module.call("fail"), "WasmTrap");
      await module.setMemoryLimit(PAGE);
      await module.close();
      const names = recording.finished().map(({ name }) => name);
      await recording.stop();
      const after = await Promise.all(OPERATIONS.map((name) => countOf("wasm", name)));
      for (const [index, name] of OPERATIONS.entries()) {
        const counted = (after[index] ?? 0) - (before[index] ?? 0);
        assert.ok(counted > 0, name);
        assert.equal(names.filter((span) => span === `sandbox.wasm.${name}`).length, counted, name);
      }
    },
  };
}

/** In sandboxes of their own, which they close. */
const ends: Part<"leftovers" | "closed"> = {
  async leftovers() {
    const own = await openForTest();
    const engine = await WasmEngine.open({ host: own.sandboxes, log: silent });
    const module = await engine.start({ domain: "a", bytes: KIT });
    const call = module.call("spin", [], { fuel: 1e15 });
    const hosts = own.sandboxes.run.list().flatMap(({ pid }) => readProcess(pid) ?? []);
    assert.ok(hosts.length > 0);
    await Promise.all([engine.close(), assert.rejects(call)]);
    await until(() => !hosts.some(isRunning));
    await own.sandboxes.close();
    assert.deepEqual(await readdir(own.dataDir), []);
    await own[Symbol.asyncDispose]();
  },
  async closed() {
    await using own = await openForTest();
    const engine = await WasmEngine.open({ host: own.sandboxes, log: silent, spare: false });
    await engine.close();
    await refused(() => engine.start({ domain: "a", bytes: KIT }), "Unavailable");
  },
};

export const wasmFixture: FixtureMaker = {
  name: "wasm",
  async open() {
    const opened = await openForTest();
    const engine = await WasmEngine.open({ host: opened.sandboxes, log: silent, spare: false });
    const load: Load = (more = {}) => engine.start({ domain: "one", bytes: KIT, ...more });
    const scenarios: Record<Feature, (() => Promise<void>) | string> = {
      ...answers(load),
      ...bounds(load),
      ...walls(load),
      ...lifetime(load, engine),
      ...ends,
    };
    return {
      engine,
      availability: await engine.probe(),
      scenarios,
      async [Symbol.asyncDispose]() {
        await engine.close();
        await opened[Symbol.asyncDispose]();
      },
    };
  },
};
