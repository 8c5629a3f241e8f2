import { assemble, type Code, type TestModule, type ValueType, w } from "./wasm-assembler.ts";

/** Modules for tests of the engine, written out by hand. */

type Import = NonNullable<TestModule["imports"]>[number];

const wasi = (name: string, params: ValueType[], results: ValueType[] = ["i32"]): Import => ({
  module: "wasi_snapshot_preview1",
  name,
  params,
  results,
});
const i32s = (count: number): ValueType[] => Array.from({ length: count }, () => "i32");

/** Functions of the kit that call the host, in the order they are imported. */
const FD_WRITE = 0;
const PROC_EXIT = 1;
const CLOCK = 2;
const POLL = 3;
const KIT_IMPORTS: Import[] = [
  wasi("fd_write", i32s(4)),
  wasi("proc_exit", ["i32"], []),
  wasi("clock_time_get", ["i32", "i64", "i32"]),
  wasi("poll_oneoff", i32s(4)),
];

/** A bit of everything: sums, traps, loops, calls without end, memory, output. */
export const KIT = assemble({
  imports: KIT_IMPORTS,
  memory: { min: 1 },
  data: [{ at: 1024, bytes: "Grüße\n" }],
  globals: [{ type: "i32", mutable: true, init: w.i32(0), name: "counter" }],
  functions: [
    { name: "add", params: ["i32", "i32"], results: ["i32"], code: w.add(w.get(0), w.get(1)) },
    { name: "add64", params: ["i64", "i64"], results: ["i64"], code: w.add64(w.get(0), w.get(1)) },
    { name: "same32", params: ["f32"], results: ["f32"], code: w.get(0) },
    { name: "same64", params: ["f64"], results: ["f64"], code: w.get(0) },
    { name: "pair", results: ["i32", "i64"], code: [...w.i32(-1), ...w.i64(2n ** 62n)] },
    { name: "divide", params: ["i32", "i32"], results: ["i32"], code: w.divS(w.get(0), w.get(1)) },
    { name: "peek", params: ["i32"], results: ["i32"], code: w.load(0, w.get(0)) },
    { name: "poke", params: ["i32", "i32"], code: w.store(0, w.get(0), w.get(1)) },
    { name: "fail", code: w.unreachable },
    { name: "spin", code: w.loop(w.br(0)) },
    {
      name: "deep",
      params: ["i32"],
      results: ["i32"],
      code: w.add(w.call(KIT_IMPORTS.length + 10, w.get(0)), w.i32(1)),
    },
    { name: "grow", params: ["i32"], results: ["i32"], code: w.memoryGrow(w.get(0)) },
    {
      name: "fill",
      params: ["i32"],
      code: w.loop([...w.memoryFill(w.i32(0), w.i32(1), w.get(0)), ...w.br(0)]),
    },
    {
      name: "count",
      results: ["i32"],
      code: [...w.globalSet(0, w.add(w.globalGet(0), w.i32(1))), ...w.globalGet(0)],
    },
    {
      name: "print",
      params: ["i32", "i32"],
      results: ["i32"],
      code: [
        ...w.store(0, w.i32(16), w.i32(1024)),
        ...w.store(0, w.i32(20), w.get(1)),
        ...w.call(FD_WRITE, w.get(0), w.i32(16), w.i32(1), w.i32(24)),
      ],
    },
    { name: "exit", params: ["i32"], code: w.call(PROC_EXIT, w.get(0)) },
    { name: "now", results: ["i32"], code: w.call(CLOCK, w.i32(0), w.i64(0n), w.i32(32)) },
    {
      name: "wild",
      params: ["i32"],
      results: ["i32"],
      code: w.call(FD_WRITE, w.i32(1), w.get(0), w.i32(-1), w.i32(-1)),
    },
    {
      name: "sleep",
      params: ["i64"],
      results: ["i32"],
      // One subscription to a clock: 48 bytes, of which the time stands at 24.
      code: [
        ...w.get(0),
        ...w.set(1, []),
        ...w.store(0, w.i32(2048 + 24), w.wrap(w.get(1))),
        ...w.store(0, w.i32(2048 + 28), w.wrap(w.shrU64(w.get(1), w.i64(32n)))),
        ...w.call(POLL, w.i32(2048), w.i32(3072), w.i32(1), w.i32(3200)),
      ],
      locals: ["i64"],
    },
    { name: "vector", params: ["v128"], code: w.nop },
    { name: "reference", params: ["externref"], code: w.nop },
  ],
});

const PATH = 64;
const OTHER = 128;
const VECTOR = 16;
const BUFFER = 4096;
const BUFFER_BYTES = 60_000;
const RIGHTS = w.i64((1n << 30n) - 1n);

/** `path_open` below the directory that is open as 3; the descriptor is stored at `into`. */
const open = (path: number, length: number, flags: number, into: number): Code =>
  w.call(
    0,
    w.i32(3),
    w.i32(0),
    w.i32(path),
    w.i32(length),
    w.i32(flags),
    RIGHTS,
    RIGHTS,
    w.i32(0),
    w.i32(into),
  );
const exitUnless = (call: Code): Code => [...w.set(0, call), ...w.if(w.get(0), w.call(4, w.get(0)))];

/** A WASI program: copies the file `from` of the project to `to`; ends with the number of the first error. */
export function copyProgram(from: string, to: string): Uint8Array<ArrayBuffer> {
  const [first, second] = [from, to].map((path) => Buffer.byteLength(path));
  return assemble({
    imports: [
      wasi("path_open", ["i32", "i32", "i32", "i32", "i32", "i64", "i64", "i32", "i32"]),
      wasi("fd_read", i32s(4)),
      wasi("fd_write", i32s(4)),
      wasi("fd_close", ["i32"]),
      wasi("proc_exit", ["i32"], []),
    ],
    memory: { min: 2 },
    data: [
      { at: PATH, bytes: from },
      { at: OTHER, bytes: to },
    ],
    functions: [
      {
        name: "_start",
        locals: ["i32"],
        code: [
          ...exitUnless(open(PATH, first ?? 0, 0, 8)),
          ...w.store(0, w.i32(VECTOR), w.i32(BUFFER)),
          ...w.store(0, w.i32(VECTOR + 4), w.i32(BUFFER_BYTES)),
          ...exitUnless(w.call(1, w.load(0, w.i32(8)), w.i32(VECTOR), w.i32(1), w.i32(24))),
          // What was read is what is to be written.
          ...w.store(0, w.i32(VECTOR + 4), w.load(0, w.i32(24))),
          ...exitUnless(open(OTHER, second ?? 0, 1 | 8, 12)),
          ...exitUnless(w.call(2, w.load(0, w.i32(12)), w.i32(VECTOR), w.i32(1), w.i32(28))),
          ...exitUnless(w.call(3, w.load(0, w.i32(12)))),
          ...exitUnless(w.call(3, w.load(0, w.i32(8)))),
          ...w.call(4, w.i32(0)),
        ],
      },
    ],
  });
}

/** A WASI program that writes its arguments and environment, each as it lies in memory, to standard output. */
export const ECHO_PROGRAM = assemble({
  imports: [
    wasi("args_sizes_get", i32s(2)),
    wasi("args_get", i32s(2)),
    wasi("environ_sizes_get", i32s(2)),
    wasi("environ_get", i32s(2)),
    wasi("fd_write", i32s(4)),
    wasi("fd_read", i32s(4)),
  ],
  memory: { min: 8 },
  functions: [
    {
      name: "_start",
      code: [
        ...[0, 2].flatMap((first) => [
          ...w.drop(w.call(first, w.i32(0), w.i32(VECTOR + 4))),
          ...w.drop(w.call(first + 1, w.i32(256), w.i32(BUFFER))),
          ...w.store(0, w.i32(VECTOR), w.i32(BUFFER)),
          ...w.drop(w.call(4, w.i32(1), w.i32(VECTOR), w.i32(1), w.i32(32))),
        ]),
        ...w.store(0, w.i32(VECTOR + 4), w.i32(BUFFER_BYTES)),
        ...w.drop(w.call(5, w.i32(0), w.i32(VECTOR), w.i32(1), w.i32(VECTOR + 4))),
        ...w.drop(w.call(4, w.i32(2), w.i32(VECTOR), w.i32(1), w.i32(32))),
      ],
    },
  ],
});

const cds = (name: string, params: number): Import => ({
  module: "cds",
  name,
  params: i32s(params),
  results: ["i32"],
});

/** Files by the import module `cds`: each host function is exported as it is, the path lies at 64. */
export function cdsModule(path: string): Uint8Array<ArrayBuffer> {
  return assemble({
    imports: [cds("file_size", 2), cds("file_read", 4), cds("file_write", 4), cds("file_list", 4)],
    memory: { min: 2 },
    data: [{ at: PATH, bytes: path }],
    exports: ["file_size", "file_read", "file_write", "file_list"].map((name, index) => ({
      name,
      kind: 0 as const,
      index,
    })),
    functions: [
      { name: "peek", params: ["i32"], results: ["i32"], code: w.load8(0, w.get(0)) },
      { name: "poke", params: ["i32", "i32"], code: w.store8(0, w.get(0), w.get(1)) },
    ],
  });
}

export const PATH_AT = PATH;
export const BUFFER_AT = BUFFER;
