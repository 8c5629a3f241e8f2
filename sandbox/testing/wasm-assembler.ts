/** Writes WebAssembly modules for tests: what a program in text form would say, as calls. */

export type ValueType = "i32" | "i64" | "f32" | "f64" | "v128" | "funcref" | "externref";

const TYPES: Record<ValueType, number> = {
  i32: 0x7f,
  i64: 0x7e,
  f32: 0x7d,
  f64: 0x7c,
  v128: 0x7b,
  funcref: 0x70,
  externref: 0x6f,
};
const EMPTY = 0x40;

export type Code = readonly (number | Code)[];

const flat = (code: Code): number[] => (code as unknown[]).flat(Number.POSITIVE_INFINITY) as number[];

export function unsigned(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 0x80);
  return [...bytes, rest];
}

export function signed(value: bigint | number): number[] {
  const bytes: number[] = [];
  for (let rest = BigInt(value); ; rest >>= 7n) {
    const low = Number(rest & 0x7fn);
    if ((rest >> 6n === 0n && low < 64) || (rest >> 6n === -1n && low >= 64)) return [...bytes, low];
    bytes.push(low | 0x80);
  }
}

function float(value: number, bytes: 4 | 8): number[] {
  const view = new DataView(new ArrayBuffer(bytes));
  if (bytes === 4) view.setFloat32(0, value, true);
  else view.setFloat64(0, value, true);
  return [...new Uint8Array(view.buffer)];
}

const text = (value: string) => [...new TextEncoder().encode(value)];
const named = (value: string) => [...unsigned(text(value).length), ...text(value)];
const vector = (items: Code[]): number[] => [...unsigned(items.length), ...flat(items)];

/** Operands come first, as on the stack. */
const op =
  (...bytes: number[]) =>
  (...operands: Code[]): Code => [...operands, ...bytes];
const withIndex =
  (byte: number) =>
  (index: number, ...operands: Code[]): Code => [...operands, byte, unsigned(index)];
const memory =
  (byte: number, align: number) =>
  (offset: number, ...operands: Code[]): Code => [...operands, byte, align, unsigned(offset)];
const block = (byte: number) => (code: Code, result?: ValueType) => [
  byte,
  result === undefined ? EMPTY : TYPES[result],
  ...code,
  0x0b,
];

/** Instructions; each call gives the bytes of one with its operands before it. */
export const w = {
  unreachable: [0x00] as Code,
  nop: [0x01] as Code,
  i32: (value: number): Code => [0x41, signed(value | 0)],
  i64: (value: bigint): Code => [0x42, signed(BigInt.asIntN(64, value))],
  f32: (value: number): Code => [0x43, float(value, 4)],
  f64: (value: number): Code => [0x44, float(value, 8)],
  get: withIndex(0x20),
  set: withIndex(0x21),
  tee: withIndex(0x22),
  globalGet: withIndex(0x23),
  globalSet: withIndex(0x24),
  call: withIndex(0x10),
  callIndirect: (type: number, ...operands: Code[]): Code => [...operands, 0x11, unsigned(type), 0],
  returnCall: withIndex(0x12),
  block: block(0x02),
  loop: block(0x03),
  if: (condition: Code, then: Code, otherwise?: Code, result?: ValueType): Code => [
    ...condition,
    0x04,
    result === undefined ? EMPTY : TYPES[result],
    ...then,
    ...(otherwise === undefined ? [] : [0x05, ...otherwise]),
    0x0b,
  ],
  br: withIndex(0x0c),
  brIf: withIndex(0x0d),
  brTable: (labels: readonly number[], ...operands: Code[]): Code => [
    ...operands,
    0x0e,
    unsigned(labels.length - 1),
    labels.map(unsigned),
  ],
  return: op(0x0f),
  drop: op(0x1a),
  select: op(0x1b),
  load: memory(0x28, 2),
  load8: memory(0x2d, 0),
  loadF64: memory(0x2b, 3),
  store: memory(0x36, 2),
  store8: memory(0x3a, 0),
  storeF64: memory(0x39, 3),
  memorySize: [0x3f, 0] as Code,
  memoryGrow: (pages: Code): Code => [...pages, 0x40, 0],
  memoryFill: op(0xfc, 11, 0),
  memoryCopy: op(0xfc, 10, 0, 0),
  tableGrow: (table: number, ...operands: Code[]): Code => [...operands, 0xfc, 15, unsigned(table)],
  refNull: (type: ValueType): Code => [0xd0, TYPES[type]],
  eqz: op(0x45),
  eq: op(0x46),
  ne: op(0x47),
  ltS: op(0x48),
  ltU: op(0x49),
  gtS: op(0x4a),
  geS: op(0x4e),
  geU: op(0x4f),
  add: op(0x6a),
  sub: op(0x6b),
  mul: op(0x6c),
  divS: op(0x6d),
  divU: op(0x6e),
  remU: op(0x70),
  and: op(0x71),
  or: op(0x72),
  xor: op(0x73),
  shl: op(0x74),
  shrU: op(0x76),
  rotl: op(0x77),
  add64: op(0x7c),
  sub64: op(0x7d),
  mul64: op(0x7e),
  shrU64: op(0x88),
  xor64: op(0x85),
  wrap: op(0xa7),
  extend: op(0xad),
  truncF64: op(0xaa),
  fromI32: op(0xb7),
  f64Add: op(0xa0),
  f64Sub: op(0xa1),
  f64Mul: op(0xa2),
  f64Gt: op(0x64),
} as const;

export interface TestFunction {
  params?: ValueType[];
  results?: ValueType[];
  locals?: ValueType[];
  code: Code;
  /** Exported under this name. */
  name?: string;
}

export interface TestModule {
  imports?: { module: string; name: string; params?: ValueType[]; results?: ValueType[] }[];
  functions?: TestFunction[];
  /** Pages; exported as `memory`. */
  memory?: { min: number; max?: number };
  /** Functions in a table of just them. */
  table?: number[];
  /** Tables of function references, besides. */
  tables?: { min: number; max?: number }[];
  globals?: { type: ValueType; mutable?: boolean; init: Code; name?: string }[];
  start?: number;
  data?: { at: number; bytes: Uint8Array | string }[];
  /** Further exports. */
  exports?: { name: string; kind: 0 | 1 | 2 | 3; index: number }[];
  /** Whole sections to be put in, by the id they stand before. */
  extra?: { before: number; section: number[] }[];
}

const size = ({ min, max }: { min: number; max?: number }): Code =>
  max === undefined ? [0, unsigned(min)] : [1, unsigned(min), unsigned(max)];

function body({ locals = [], code }: TestFunction): Code {
  const bytes = flat([vector(locals.map((type) => [1, TYPES[type]])), ...code, 0x0b]);
  return [unsigned(bytes.length), bytes];
}

function join(
  sections: readonly (readonly [number, Code | undefined])[],
  extras: readonly { before: number; section: number[] }[],
): Uint8Array<ArrayBuffer> {
  const out: number[] = [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
  for (const [id, section] of sections) {
    for (const extra of extras) if (extra.before === id) out.push(...extra.section);
    if (section === undefined) continue;
    const bytes = flat(section);
    out.push(id, ...unsigned(bytes.length));
    for (const byte of bytes) out.push(byte);
  }
  return new Uint8Array(out);
}

/** The module's bytes. Function indexes count imports first; each import and function has a type of its own. */
export function assemble(module: TestModule): Uint8Array<ArrayBuffer> {
  const { imports = [], functions = [], globals = [], data = [], table } = module;
  const tables = [...(table === undefined ? [] : [{ min: table.length }]), ...(module.tables ?? [])];
  const signatures = [...imports, ...functions].map(({ params = [], results = [] }) => [
    0x60,
    vector(params.map((type) => [TYPES[type]])),
    vector(results.map((type) => [TYPES[type]])),
  ]);
  const exports = [
    ...functions.flatMap(({ name }, index) =>
      name === undefined ? [] : [{ name, kind: 0, index: imports.length + index }],
    ),
    ...globals.flatMap(({ name }, index) => (name === undefined ? [] : [{ name, kind: 3, index }])),
    ...(module.memory === undefined ? [] : [{ name: "memory", kind: 2, index: 0 }]),
    ...(module.exports ?? []),
  ];
  const sections: [number, Code | undefined][] = [
    [1, signatures.length > 0 ? vector(signatures) : undefined],
    [
      2,
      imports.length > 0
        ? vector(
            imports.map(({ module: from, name }, index) => [named(from), named(name), 0, unsigned(index)]),
          )
        : undefined,
    ],
    [
      3,
      functions.length > 0
        ? vector(functions.map((_, index) => unsigned(imports.length + index)))
        : undefined,
    ],
    [4, tables.length > 0 ? vector(tables.map((each) => [0x70, size(each)])) : undefined],
    [5, module.memory === undefined ? undefined : [1, size(module.memory)]],
    [
      6,
      globals.length > 0
        ? vector(
            globals.map(({ type, mutable, init }) => [TYPES[type], mutable === true ? 1 : 0, init, 0x0b]),
          )
        : undefined,
    ],
    [
      7,
      exports.length > 0
        ? vector(exports.map(({ name, kind, index }) => [named(name), kind, unsigned(index)]))
        : undefined,
    ],
    [8, module.start === undefined ? undefined : unsigned(module.start)],
    [9, table === undefined ? undefined : [1, 0, w.i32(0), 0x0b, vector(table.map(unsigned))]],
    [10, functions.length > 0 ? vector(functions.map(body)) : undefined],
    [
      11,
      data.length > 0
        ? vector(
            data.map(({ at, bytes }) => [
              0,
              w.i32(at),
              0x0b,
              vector([...(typeof bytes === "string" ? text(bytes) : bytes)].map((byte) => [byte])),
            ]),
          )
        : undefined,
    ],
  ];
  return join(sections, module.extra ?? []);
}
