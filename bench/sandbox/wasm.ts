import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openSandboxes } from "#sandbox";
import { WasmEngine } from "#sandbox/engines/wasm/engine.ts";
import { meterModule } from "#sandbox/engines/wasm/meter/meter.ts";
import { silent } from "#sandbox/testing/harness.ts";
import { instantiate } from "#sandbox/testing/metered.ts";
import { assemble, w } from "#sandbox/testing/wasm-assembler.ts";
import { KERNELS } from "#sandbox/testing/wasm-kernels.ts";
import { KIT } from "#sandbox/testing/wasm-programs.ts";
import { median, printTable, type Row } from "../support.ts";

const ROUNDS = 9;
const STARTS = 5;
const MUCH = 1e15;
/** A busy machine is measured too. */
const timeoutMs = 120_000;
const REAL = new URL("../../node_modules/playwright-core/lib/webp_codec.wasm", import.meta.url);

async function timed(act: () => unknown): Promise<number> {
  const started = performance.now();
  await act();
  return performance.now() - started;
}

/** The same loops with and without what the rewriter puts in, in one process, taking turns. */
async function overhead(): Promise<void> {
  const rows: Row[] = [];
  for (const [name, { bytes, n }] of Object.entries(KERNELS)) {
    const plain = new WebAssembly.Instance(new WebAssembly.Module(bytes)).exports.run as (
      n: number,
    ) => number;
    const metered = instantiate(bytes);
    const times = { plain: [] as number[], metered: [] as number[] };
    let fuel = 0;
    for (let round = 0; round <= ROUNDS; round += 1) {
      const without = await timed(() => plain(n));
      const with_ = await timed(() => {
        fuel = MUCH - metered.run("run", [n], MUCH).fuelLeft;
      });
      // The first round is for the compiler.
      if (round === 0) continue;
      times.plain.push(without);
      times.metered.push(with_);
    }
    rows.push({
      name,
      "plain ms": median(times.plain),
      "metered ms": median(times.metered),
      ratio: median(times.metered) / median(times.plain),
      "M fuel/s": fuel / median(times.metered) / 1000,
    });
  }
  printTable(rows);
  const logarithms = rows.map(({ ratio }) => Math.log(Number(ratio)));
  const geomean = Math.exp(logarithms.reduce((sum, each) => sum + each, 0) / logarithms.length);
  console.log(`geometric mean of the ratios: ${geomean.toFixed(3)} (aim: 1.4 at most)`);
}

async function rewriting(): Promise<void> {
  const modules = { "webp codec": readFileSync(REAL), "kit of the tests": KIT };
  const rows: Row[] = [];
  for (const [name, bytes] of Object.entries(modules)) {
    const times: number[] = [];
    let size = 0;
    for (let round = 0; round < ROUNDS; round += 1) {
      times.push(
        await timed(() => {
          size = meterModule(bytes).bytes.length;
        }),
      );
    }
    const rest = median(times.slice(1));
    rows.push({
      name,
      KB: bytes.length / 1024,
      "first ms": times[0] ?? 0,
      "ms p50": rest,
      "size ratio": size / bytes.length,
    });
  }
  printTable(rows);
}

/** A module that no cache has. */
const fresh = (value: number) =>
  assemble({ functions: [{ name: "f", results: ["i32"], code: w.i32(value) }] });

async function starting(): Promise<void> {
  const dataDir = await mkdtemp(join(tmpdir(), "cds-bench-wasm-"));
  try {
    await using sandboxes = await openSandboxes({ dataDir, log: silent });
    const engine = await WasmEngine.open({ host: sandboxes, log: silent, spare: false });
    const times: Record<string, number[]> = {
      "cold: process, thread, module": [],
      "new module": [],
      "compiled module": [],
      call: [],
    };
    for (let round = 0; round < STARTS; round += 1) {
      const domain = `bench ${round}`;
      const add = (name: string, ms: number) => times[name]?.push(ms);
      const [cold, other] = [fresh(2 * round), fresh(2 * round + 1)];
      add(
        "cold: process, thread, module",
        await timed(() => engine.start({ domain, bytes: cold, timeoutMs })),
      );
      await settle();
      add("new module", await timed(() => engine.start({ domain, bytes: other, timeoutMs })));
      await settle();
      add("compiled module", await timed(() => engine.start({ domain, bytes: other, timeoutMs })));
      const module = await engine.start({ domain, bytes: KIT, timeoutMs });
      for (let call = 0; call < 50; call += 1) add("call", await timed(() => module.call("add", [1, 2])));
      await Promise.all(engine.list().map((each) => each.close()));
    }
    await engine.close();
    printTable(
      Object.entries(times).map(([name, values]) => ({
        name,
        "ms p50": median(values),
        "ms min": Math.min(...values),
      })),
    );
  } finally {
    await rm(dataDir, { recursive: true, force: true });
  }
}

/** The next thread gets ready meanwhile, as it does between two loads of people. */
const settle = () => new Promise((resolve) => setTimeout(resolve, 500));

/** What metering costs, what rewriting costs, and how long a module takes to be there and to answer. */
export async function benchWasm(): Promise<void> {
  await overhead();
  await rewriting();
  await starting();
}
