/**
 * What modules leave behind when they are stopped, as JSON: to be compared between processes whose V8 compiles in
 * different ways. `wasm-determinism.ts`
 */
import { createHash } from "node:crypto";
import { instantiate } from "./metered.ts";
import { assemble, w } from "./wasm-assembler.ts";
import { KERNELS } from "./wasm-kernels.ts";

/** Goes deeper and leaves its depth in memory. */
const DEEP = assemble({
  memory: { min: 1 },
  functions: [
    {
      name: "run",
      params: ["i32"],
      results: ["i32"],
      locals: ["i64", "f64", "i32"],
      code: [
        ...w.store(0, w.i32(0), w.get(0)),
        ...w.set(3, w.call(0, w.add(w.get(0), w.i32(1)))),
        ...w.add(w.get(3), w.get(0)),
      ],
    },
  ],
});
/** Fills, grows and stores until something stops it. */
const BULK = assemble({
  memory: { min: 1 },
  functions: [
    {
      name: "run",
      params: ["i32"],
      results: ["i32"],
      code: [
        ...w.loop([
          ...w.memoryFill(w.i32(64), w.load(0, w.i32(0)), w.i32(5000)),
          ...w.store(0, w.i32(0), w.add(w.load(0, w.i32(0)), w.i32(1))),
          ...w.if(w.eqz(w.and(w.load(0, w.i32(0)), w.i32(63))), w.drop(w.memoryGrow(w.i32(1)))),
          ...w.br(0),
        ]),
        ...w.i32(0),
      ],
    },
  ],
});

const programs: Record<string, Uint8Array> = {
  ...Object.fromEntries(Object.entries(KERNELS).map(([name, { bytes }]) => [name, bytes])),
  deep: DEEP,
  bulk: BULK,
};
const found: Record<string, unknown> = {};
for (const [name, bytes] of Object.entries(programs)) {
  for (const fuel of [1000, 54_321, 3_000_000]) {
    const metered = instantiate(bytes, { pages: 100 });
    const { result, trap, fuelLeft, stackLeft } = metered.run("run", [1_000_000], fuel);
    const memory = (metered.exports.memory as WebAssembly.Memory).buffer;
    const hash = createHash("sha256").update(new Uint8Array(memory)).digest("hex");
    found[`${name} ${fuel}`] = { result, trap, fuelLeft, stackLeft, hash, bytes: memory.byteLength };
  }
}
process.stdout.write(`${JSON.stringify(found)}\n`);
