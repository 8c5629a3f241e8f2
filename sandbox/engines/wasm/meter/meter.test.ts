import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { instantiate } from "../../../testing/metered.ts";
import { assemble, type Code, w } from "../../../testing/wasm-assembler.ts";
import { KERNELS } from "../../../testing/wasm-kernels.ts";
import { meterModule } from "./meter.ts";

const MUCH = 1e12;
/** A function `f` of no parameters that does `code`. */
const only = (code: Code, more: Parameters<typeof assemble>[0] = {}) =>
  assemble({ memory: { min: 1 }, ...more, functions: [{ name: "f", code }, ...(more.functions ?? [])] });

describe("a rewritten module", () => {
  it.each(Object.entries(KERNELS))("computes what the original computes: %s", (_name, { bytes, n }) => {
    const few = Math.max(3, Math.floor(n / 1000));
    const plain = new WebAssembly.Instance(new WebAssembly.Module(bytes)).exports;
    const { result, trap, fuelLeft } = instantiate(bytes).run("run", [few], MUCH);
    expect(trap).toBeUndefined();
    expect(result).toBe((plain.run as (n: number) => number)(few));
    expect(fuelLeft).toBeLessThan(MUCH);
  });

  it.each(Object.entries(KERNELS))(
    "ends with exactly its fuel, and with one unit less traps: %s",
    (_name, { bytes }) => {
      const used = MUCH - instantiate(bytes).run("run", [5], MUCH).fuelLeft;
      expect(instantiate(bytes).run("run", [5], used)).toMatchObject({ trap: undefined, fuelLeft: 0 });
      const short = instantiate(bytes).run("run", [5], used - 1);
      expect(short.fuelLeft).toBeLessThan(0);
    },
  );

  it("stops a loop at the same point every time, with its memory as it was then", () => {
    const bytes = only(w.loop([...w.store(0, w.i32(8), w.add(w.load(0, w.i32(8)), w.i32(1))), ...w.br(0)]));
    const runs = [1, 2, 3].map(() => {
      const metered = instantiate(bytes);
      const { trap, fuelLeft } = metered.run("f", [], 1_000_000);
      const rounds = new Uint32Array((metered.exports.memory as WebAssembly.Memory).buffer)[2];
      return { trap, fuelLeft, rounds };
    });
    expect(runs[0]?.trap).toContain("unreachable");
    expect(runs[0]?.rounds).toBeGreaterThan(10_000);
    expect(runs[1]).toEqual(runs[0]);
    expect(runs[2]).toEqual(runs[0]);
  });

  it("is charged exactly up to a trap of its own", () => {
    const count = (rounds: number) => {
      const code: Code = [
        ...w.loop([
          ...w.set(0, w.add(w.get(0), w.i32(1))),
          ...w.drop(w.divS(w.i32(1), w.sub(w.get(0), w.i32(rounds)))),
          ...w.br(0),
        ]),
      ];
      const { trap, fuelLeft } = instantiate(
        assemble({ functions: [{ name: "f", locals: ["i32"], code }] }),
      ).run("f", [], MUCH);
      expect(trap).toContain("divide by zero");
      return MUCH - fuelLeft;
    };
    const [one, two, hundred] = [count(1), count(2), count(100)];
    expect(two - one).toBeGreaterThan(5);
    expect(hundred - one).toBe(99 * (two - one));
  });

  it("pays for what one instruction does to much memory", () => {
    const fill = (bytes: number) =>
      MUCH - instantiate(only(w.memoryFill(w.i32(0), w.i32(1), w.i32(bytes)))).run("f", [], MUCH).fuelLeft;
    expect(fill(64 * 1024) - fill(0)).toBe(8192);
    const copy = only(w.memoryCopy(w.i32(0), w.i32(0), w.i32(-1)));
    expect(instantiate(copy).run("f", [], 1000)).toMatchObject({
      trap: expect.stringContaining("unreachable"),
    });
    const table = only(w.drop(w.tableGrow(0, w.refNull("funcref"), w.i32(5000))), { tables: [{ min: 0 }] });
    expect(MUCH - instantiate(table).run("f", [], MUCH).fuelLeft).toBeGreaterThan(5000);
  });

  it("grows its memory as far as it is allowed to, and sees -1 beyond", () => {
    const grow = assemble({
      memory: { min: 1 },
      functions: [{ name: "f", params: ["i32"], results: ["i32"], code: w.memoryGrow(w.get(0)) }],
    });
    const metered = instantiate(grow, { pages: 10 });
    const grown = [8, 2, 1, 1, -1, 0].map((pages) => metered.run("f", [pages], MUCH).result);
    expect(grown).toEqual([1, -1, 9, -1, -1, 10]);
    expect(metered.run("f", [1], 1000).result).toBe(-1);
    expect(instantiate(grow, { pages: 10 }).run("f", [8], 1000).fuelLeft).toBeLessThan(0);
  });

  it("counts the depth of calls: the same depth every time, and back to the start after it", () => {
    const deep = assemble({
      functions: [
        {
          name: "f",
          params: ["i32"],
          results: ["i32"],
          code: w.add(w.call(0, w.add(w.get(0), w.i32(1))), w.i32(1)),
        },
      ],
    });
    const runs = [1, 2].map(() => instantiate(deep).run("f", [0], MUCH));
    expect(runs[0]?.trap).toContain("unreachable");
    expect(runs[0]?.stackLeft).toBeLessThan(0);
    expect(runs[1]).toEqual(runs[0]);
    const huge = assemble({
      functions: [
        { name: "f", locals: Array.from({ length: 10_000 }, () => "i64" as const), code: w.call(0) },
        { name: "g", params: ["i32"], results: ["i32"], code: w.get(0) },
      ],
    });
    const metered = instantiate(huge);
    expect(metered.run("f", [], MUCH)).toMatchObject({ trap: expect.stringContaining("unreachable") });
    expect(metered.run("g", [7], MUCH)).toMatchObject({ result: 7, trap: undefined });
  });

  it("goes on by tail calls as long as there is fuel, without going deeper", () => {
    const code: Code = [
      ...w.if(w.eqz(w.get(0)), w.return(w.get(1))),
      ...w.returnCall(0, w.sub(w.get(0), w.i32(1)), w.add(w.get(1), w.i32(2))),
    ];
    const bytes = assemble({ functions: [{ name: "f", params: ["i32", "i32"], results: ["i32"], code }] });
    const metered = instantiate(bytes);
    expect(metered.run("f", [1_000_000, 0], MUCH)).toMatchObject({ result: 2_000_000, trap: undefined });
    const { trap, fuelLeft, stackLeft } = metered.run("f", [1_000_000, 0], 1000);
    expect(trap).toContain("unreachable");
    expect(fuelLeft).toBeLessThan(0);
    expect(stackLeft).toBeGreaterThan(0);
  });

  it("does not start by itself", () => {
    const bytes = only(w.loop(w.br(0)), { start: 0 });
    const metered = instantiate(bytes);
    expect(metered.hidden.start).not.toBeNull();
    expect(metered.run(metered.hidden.start ?? "", [], 10_000).fuelLeft).toBeLessThan(0);
  });

  it("can run nothing before it is given fuel", () => {
    const { exports } = new WebAssembly.Instance(
      new WebAssembly.Module(meterModule(only(w.loop(w.br(0)))).bytes),
    );
    expect(() => (exports.f as () => void)()).toThrow("unreachable");
  });

  it("keeps its own names, whatever they are", () => {
    const names = ["\0metered.fuel", "\0\0metered.stack", ""];
    const bytes = only(w.nop, { exports: names.map((name) => ({ name, kind: 0 as const, index: 0 })) });
    const metered = instantiate(bytes);
    for (const name of names) expect(typeof metered.exports[name]).toBe("function");
    expect(metered.run("f", [], 100).fuelLeft).toBeLessThanOrEqual(100);
  });

  it("is a valid module where the original was one, for a real codec of half a megabyte", () => {
    const path = new URL("../../../../node_modules/playwright-core/lib/webp_codec.wasm", import.meta.url);
    const original = readFileSync(path);
    const { bytes } = meterModule(original);
    expect(WebAssembly.validate(bytes)).toBe(true);
    expect(bytes.length).toBeLessThan(original.length * 1.5);
  });
});
