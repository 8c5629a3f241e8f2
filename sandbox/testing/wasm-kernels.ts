import { assemble, type Code, type TestFunction, w } from "./wasm-assembler.ts";

/** Small programs of the kinds that modules spend their time in: each exports `run(n) -> i32`. */

/** `for (local = 0; local < bound; local += 1) code` */
function times(local: number, bound: Code, code: Code): Code {
  return [
    w.set(local, w.i32(0)),
    ...w.block([
      ...w.loop([
        ...w.brIf(1, w.geS(w.get(local), bound)),
        ...code,
        ...w.set(local, w.add(w.get(local), w.i32(1))),
        ...w.br(0),
      ]),
    ]),
  ];
}

const run = (more: Omit<TestFunction, "name" | "params" | "results">): TestFunction => ({
  name: "run",
  params: ["i32"],
  results: ["i32"],
  ...more,
});

/** One chain of multiplications: nothing but arithmetic. */
const congruential = run({
  locals: ["i32", "i64"],
  code: [
    ...w.set(2, w.i64(88172645463325252n)),
    ...times(
      1,
      w.get(0),
      w.set(2, w.add64(w.mul64(w.get(2), w.i64(6364136223846793005n)), w.i64(1442695040888963407n))),
    ),
    ...w.wrap(w.shrU64(w.get(2), w.i64(32n))),
  ],
});

/** Bytes crossed out in memory: loops of four instructions. */
const SIEVE_SIZE = 200_000;
const sieve = run({
  locals: ["i32", "i32", "i32", "i32"],
  code: [
    ...times(1, w.get(0), [
      ...w.memoryFill(w.i32(0), w.i32(1), w.i32(SIEVE_SIZE)),
      ...w.set(4, w.i32(0)),
      ...w.set(2, w.i32(2)),
      ...w.block([
        ...w.loop([
          ...w.brIf(1, w.geS(w.get(2), w.i32(SIEVE_SIZE))),
          ...w.if(w.load8(0, w.get(2)), [
            ...w.set(4, w.add(w.get(4), w.i32(1))),
            ...w.set(3, w.add(w.get(2), w.get(2))),
            ...w.block([
              ...w.loop([
                ...w.brIf(1, w.geS(w.get(3), w.i32(SIEVE_SIZE))),
                ...w.store8(0, w.get(3), w.i32(0)),
                ...w.set(3, w.add(w.get(3), w.get(2))),
                ...w.br(0),
              ]),
            ]),
          ]),
          ...w.set(2, w.add(w.get(2), w.i32(1))),
          ...w.br(0),
        ]),
      ]),
    ]),
    ...w.get(4),
  ],
});

/** Matrices of 64 x 64 doubles, multiplied. */
const SIDE = 64;
const cell = (base: number, row: Code, column: Code): Code =>
  w.add(w.i32(base), w.shl(w.add(w.mul(row, w.i32(SIDE)), column), w.i32(3)));
const SECOND = SIDE * SIDE * 8;
const matrix = run({
  locals: ["i32", "i32", "i32", "i32", "f64"],
  code: [
    ...times(
      2,
      w.i32(SIDE),
      times(3, w.i32(SIDE), [
        ...w.storeF64(0, cell(0, w.get(2), w.get(3)), w.fromI32(w.add(w.get(2), w.get(3)))),
        ...w.storeF64(0, cell(SECOND, w.get(2), w.get(3)), w.fromI32(w.sub(w.get(2), w.get(3)))),
      ]),
    ),
    ...times(
      1,
      w.get(0),
      times(
        2,
        w.i32(SIDE),
        times(3, w.i32(SIDE), [
          ...w.set(5, w.f64(0)),
          ...times(
            4,
            w.i32(SIDE),
            w.set(
              5,
              w.f64Add(
                w.get(5),
                w.f64Mul(
                  w.loadF64(0, cell(0, w.get(2), w.get(4))),
                  w.loadF64(0, cell(SECOND, w.get(4), w.get(3))),
                ),
              ),
            ),
          ),
          ...w.storeF64(0, cell(2 * SECOND, w.get(2), w.get(3)), w.get(5)),
        ]),
      ),
    ),
    ...w.truncF64(w.loadF64(0, cell(2 * SECOND, w.i32(3), w.i32(5)))),
  ],
});

/** Points of the Mandelbrot set: doubles, and an end that depends on them. */
const mandelbrot = run({
  locals: ["i32", "i32", "f64", "f64", "f64", "f64", "f64", "i32"],
  code: [
    ...times(1, w.get(0), [
      ...w.set(5, w.f64Sub(w.f64Mul(w.fromI32(w.remU(w.get(1), w.i32(97))), w.f64(0.03)), w.f64(2.1))),
      ...w.set(6, w.f64Sub(w.f64Mul(w.fromI32(w.remU(w.get(1), w.i32(89))), w.f64(0.025)), w.f64(1.1))),
      ...w.set(3, w.f64(0)),
      ...w.set(4, w.f64(0)),
      ...w.block(
        times(2, w.i32(100), [
          ...w.set(
            7,
            w.f64Add(w.f64Sub(w.f64Mul(w.get(3), w.get(3)), w.f64Mul(w.get(4), w.get(4))), w.get(5)),
          ),
          ...w.set(4, w.f64Add(w.f64Mul(w.f64Mul(w.get(3), w.f64(2)), w.get(4)), w.get(6))),
          ...w.set(3, w.get(7)),
          ...w.brIf(
            2,
            w.f64Gt(w.f64Add(w.f64Mul(w.get(3), w.get(3)), w.f64Mul(w.get(4), w.get(4))), w.f64(4)),
          ),
        ]),
      ),
      ...w.set(8, w.add(w.get(8), w.get(2))),
    ]),
    ...w.get(8),
  ],
});

/** Rounds of shifts, sums and exclusive ors on words in memory, as hashes have them. */
const word = (at: Code): Code => w.load(0, w.shl(w.and(at, w.i32(15)), w.i32(2)));
const hash = run({
  locals: ["i32", "i32", "i32", "i32"],
  code: [
    ...times(1, w.i32(16), w.store(0, w.shl(w.get(1), w.i32(2)), w.mul(w.get(1), w.i32(0x9e3779b9)))),
    ...times(1, w.get(0), [
      ...w.set(
        3,
        w.xor(
          w.rotl(word(w.add(w.get(1), w.i32(13))), w.i32(15)),
          w.shrU(word(w.add(w.get(1), w.i32(13))), w.i32(10)),
        ),
      ),
      ...w.set(
        4,
        w.xor(
          w.rotl(word(w.add(w.get(1), w.i32(1))), w.i32(25)),
          w.shrU(word(w.add(w.get(1), w.i32(1))), w.i32(3)),
        ),
      ),
      ...w.set(2, w.add(w.add(w.rotl(w.get(2), w.i32(7)), w.get(3)), w.add(w.get(4), word(w.get(1))))),
      ...w.store(0, w.shl(w.and(w.get(1), w.i32(15)), w.i32(2)), w.get(2)),
    ]),
    ...w.get(2),
  ],
});

/** Nothing but calls. */
const fibonacci = run({
  code: w.if(
    w.ltS(w.get(0), w.i32(2)),
    w.get(0),
    w.add(w.call(0, w.sub(w.get(0), w.i32(1))), w.call(0, w.sub(w.get(0), w.i32(2)))),
    "i32",
  ),
});

/** An interpreter in small: a jump by what memory says, and a function through a table. */
const dispatch = run({
  locals: ["i32", "i32"],
  code: [
    ...times(1, w.i32(256), w.store8(1024, w.get(1), w.and(w.mul(w.get(1), w.i32(7)), w.i32(3)))),
    ...times(
      1,
      w.get(0),
      w.block([
        ...w.block([
          ...w.block([
            ...w.block([...w.brTable([0, 1, 2, 2], w.load8(1024, w.and(w.get(1), w.i32(255))))]),
            ...w.set(2, w.add(w.get(2), w.i32(3))),
            ...w.br(2),
          ]),
          ...w.set(2, w.xor(w.get(2), w.get(1))),
          ...w.br(1),
        ]),
        ...w.set(2, w.callIndirect(1, w.get(2), w.i32(0))),
      ]),
    ),
    ...w.get(2),
  ],
});
const helper: TestFunction = { params: ["i32"], results: ["i32"], code: w.mul(w.get(0), w.i32(31)) };

const withMemory = (code: TestFunction) => assemble({ functions: [code], memory: { min: 4 } });

export const KERNELS: Readonly<Record<string, { bytes: Uint8Array<ArrayBuffer>; n: number }>> = {
  congruential: { bytes: withMemory(congruential), n: 20_000_000 },
  sieve: { bytes: withMemory(sieve), n: 30 },
  matrix: { bytes: withMemory(matrix), n: 40 },
  mandelbrot: { bytes: withMemory(mandelbrot), n: 200_000 },
  hash: { bytes: withMemory(hash), n: 8_000_000 },
  fibonacci: { bytes: withMemory(fibonacci), n: 30 },
  dispatch: {
    bytes: assemble({ functions: [dispatch, helper], memory: { min: 4 }, table: [1] }),
    n: 4_000_000,
  },
};
