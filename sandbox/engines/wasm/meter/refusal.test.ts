import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  assemble,
  type Code,
  signed,
  type TestModule,
  unsigned,
  w,
} from "../../../testing/wasm-assembler.ts";
import { KERNELS } from "../../../testing/wasm-kernels.ts";
import { InvalidModuleError } from "./invalid-module.ts";
import { MODULE_LIMITS } from "./limits.ts";
import { meterModule } from "./meter.ts";

const f = (code: Code, more: TestModule = {}) =>
  assemble({ memory: { min: 1 }, functions: [{ name: "f", code }], ...more });
const section = (id: number, ...bytes: number[]) => [id, ...unsigned(bytes.length), ...bytes];
const header = [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
const raw = (...bytes: number[]) => new Uint8Array([...header, ...bytes]);

function refusal(bytes: Uint8Array): InvalidModuleError {
  try {
    meterModule(bytes);
  } catch (error) {
    if (error instanceof InvalidModuleError) return error;
    throw error;
  }
  throw new Error("it was not refused");
}

describe("what is not supported is refused by its name", () => {
  it.each<[string, Uint8Array]>([
    ["exception handling", f([0x1f, 0x40, 1, 2, 0, ...w.unreachable, 0x0b])],
    ["exception handling", f([0x06, 0x40, ...w.unreachable, 0x19, 0x0b])],
    ["exception handling", f([0x08, 0])],
    ["exception handling", f(w.nop, { extra: [{ before: 6, section: section(13, 1, 0, 0) }] })],
    ["threads and shared memory", raw(...section(5, 1, 3, 1, 1))],
    ["threads and shared memory", f([0xfe, 3, 0])],
    ["64-bit memory", raw(...section(5, 1, 4, 1))],
    ["custom page sizes", raw(...section(5, 1, 8, 1, 0))],
    ["multiple memories", raw(...section(5, 2, 0, 1, 0, 1))],
    ["multiple memories", f([...w.i32(0), 0x28, 0x42, 1, 0, 0x1a])],
    ["multiple memories", f([0x3f, 1, 0x1a])],
    ["garbage collection", raw(...section(1, 1, 0x5f, 0))],
    ["garbage collection", raw(...section(1, 1, 0x4e, 0))],
    ["garbage collection", f([0xfb, 0, 0])],
    ["garbage collection", raw(...section(1, 1, 0x60, 1, 0x6e, 0))],
    ["typed function references", raw(...section(1, 1, 0x60, 1, 0x63, 0, 0))],
    ["typed function references", f([0x14, 0])],
    ["relaxed SIMD", f([0xfd, 0x80, 0x02])],
    ["wide arithmetic", f([0xfc, 19])],
    ["the component model", new Uint8Array([0, 0x61, 0x73, 0x6d, 0x0d, 0, 1, 0])],
  ])("%s", (proposal, bytes) => {
    expect(refusal(bytes).proposal).toBe(proposal);
  });
});

describe("a module cannot reach what is put into it", () => {
  it.each<[string, Uint8Array]>([
    ["the fuel, by its global", f(w.globalSet(0, w.i64(1n << 60n)))],
    [
      "the fuel, with globals of its own",
      f(w.globalSet(1, w.i64(1n)), { globals: [{ type: "i64", mutable: true, init: w.i64(0n) }] }),
    ],
    ["the fuel, by an export", f(w.nop, { exports: [{ name: "fuel", kind: 3, index: 0 }] })],
    ["hidden locals", f(w.set(0, w.i64(1n << 60n)))],
    ["hidden locals, where it loops", f([...w.loop(w.brIf(0, w.i32(0))), ...w.drop(w.get(0))])],
  ])("%s", (_what, bytes) => {
    expect(refusal(bytes).message).toMatch(/there is not|it has/);
    expect(WebAssembly.validate(bytes as Uint8Array<ArrayBuffer>)).toBe(false);
  });
});

describe("sizes have limits", () => {
  const functions = (count: number) => section(3, ...unsigned(count), ...Array.from({ length: 4 }, () => 0));
  it.each<[string, Uint8Array]>([
    [
      "locals",
      assemble({
        functions: [
          { code: w.nop, locals: Array.from({ length: MODULE_LIMITS.locals + 1 }, () => "i32" as const) },
        ],
      }),
    ],
    [
      "locals in one group",
      raw(
        ...section(1, 1, 0x60, 0, 0),
        ...section(3, 1, 0),
        ...section(10, 1, 8, 1, ...unsigned(2 ** 32 - 1), 0x7f, 0x0b),
      ),
    ],
    ["functions", raw(...section(1, 1, 0x60, 0, 0), ...functions(MODULE_LIMITS.functions + 1))],
    ["memory", f(w.nop, { memory: { min: MODULE_LIMITS.memoryPages + 1 } })],
    ["table elements", f(w.nop, { tables: [{ min: MODULE_LIMITS.tableElements }, { min: 1 }] })],
    ["tables", f(w.nop, { tables: Array.from({ length: MODULE_LIMITS.tables + 1 }, () => ({ min: 0 })) })],
    [
      "exports",
      f(w.nop, {
        exports: Array.from({ length: MODULE_LIMITS.exports + 1 }, (_, index) => ({
          name: `e${index}`,
          kind: 0 as const,
          index: 0,
        })),
      }),
    ],
    [
      "nesting",
      f([
        ...Array.from({ length: MODULE_LIMITS.nesting + 1 }, () => [0x02, 0x40]).flat(),
        ...Array.from({ length: MODULE_LIMITS.nesting + 1 }, () => 0x0b),
      ]),
    ],
    ["bytes", new Uint8Array(MODULE_LIMITS.moduleBytes + 1)],
  ])("of %s", (_what, bytes) => {
    expect(refusal(bytes).message).toMatch(/allowed|more than/);
  });
});

describe("broken modules", () => {
  it.each<[string, Uint8Array]>([
    ["nothing", new Uint8Array()],
    ["text", new TextEncoder().encode("(module)")],
    ["half a header", new Uint8Array([0, 0x61, 0x73])],
    ["another version", new Uint8Array([0, 0x61, 0x73, 0x6d, 2, 0, 0, 0])],
    ["a section that is longer than the file", raw(1, ...unsigned(2 ** 32 - 1))],
    ["a section twice", raw(...section(1, 0), ...section(1, 0))],
    ["sections out of order", raw(...section(3, 0), ...section(1, 0))],
    ["an unknown section", raw(...section(99, 0))],
    ["bytes after a section's items", raw(...section(1, 0, 0))],
    ["a number without end", raw(1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80)],
    ["a number of more than 32 bits", raw(1, 0xff, 0xff, 0xff, 0xff, 0x1f)],
    ["functions without code", raw(...section(1, 1, 0x60, 0, 0), ...section(3, 1, 0))],
    [
      "code that does not end",
      raw(...section(1, 1, 0x60, 0, 0), ...section(3, 1, 0), ...section(10, 1, 2, 0, 0x41)),
    ],
    ["an end too many", f([0x0b])],
    ["an else without an if", f([0x05])],
    ["a branch to nowhere", f(w.br(7))],
    ["a call of nothing", f(w.call(99))],
    ["a block of no type", f([0x02, ...signed(77), 0x0b])],
    ["a start that takes values", assemble({ functions: [{ params: ["i32"], code: w.nop }], start: 0 })],
    ["a memory from outside", raw(...section(2, 1, 1, 0x65, 1, 0x6d, 2, 0, 1))],
  ])("%s", (_what, bytes) => {
    expect(refusal(bytes)).toBeInstanceOf(InvalidModuleError);
  });

  it("never break the rewriter, and are never mended by it", () => {
    const seeds = Object.values(KERNELS).map(({ bytes }) => bytes);
    const change = fc.record({
      at: fc.nat(),
      value: fc.integer({ min: 0, max: 255 }),
      kind: fc.constantFrom("set", "insert", "delete"),
    });
    fc.assert(
      fc.property(
        fc.constantFrom(...seeds),
        fc.array(change, { minLength: 1, maxLength: 6 }),
        (seed, changes) => {
          const mutant = [...seed];
          for (const { at, value, kind } of changes) {
            const place = 8 + (at % (mutant.length - 8));
            if (kind === "set") mutant[place] = value;
            else mutant.splice(place, kind === "insert" ? 0 : 1, ...(kind === "insert" ? [value] : []));
          }
          const bytes = new Uint8Array(mutant);
          let rewritten: Uint8Array<ArrayBuffer>;
          try {
            rewritten = meterModule(bytes).bytes;
          } catch (error) {
            expect(error).toBeInstanceOf(InvalidModuleError);
            return;
          }
          if (WebAssembly.validate(rewritten)) expect(WebAssembly.validate(bytes)).toBe(true);
        },
      ),
      { numRuns: 3000 },
    );
  });

  it("of nothing but noise are refused", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (noise) => {
        expect(
          refusal(new Uint8Array([...header, 10, ...unsigned(noise.length), ...noise, 99])),
        ).toBeInstanceOf(InvalidModuleError);
      }),
      { numRuns: 500 },
    );
  });
});
