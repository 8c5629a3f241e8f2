/** The instructions that are understood: what follows each in the code, and what it does to the operand stack. */

export const OP = {
  unreachable: 0x00,
  block: 0x02,
  loop: 0x03,
  if: 0x04,
  else: 0x05,
  end: 0x0b,
  br: 0x0c,
  brIf: 0x0d,
  brTable: 0x0e,
  return: 0x0f,
  call: 0x10,
  callIndirect: 0x11,
  returnCall: 0x12,
  returnCallIndirect: 0x13,
  drop: 0x1a,
  selectTyped: 0x1c,
  localGet: 0x20,
  localSet: 0x21,
  localTee: 0x22,
  globalGet: 0x23,
  globalSet: 0x24,
  memoryGrow: 0x40,
  i32Const: 0x41,
  i64Const: 0x42,
  i64LtS: 0x53,
  i64GtU: 0x56,
  i64Add: 0x7c,
  i64Sub: 0x7d,
  i64Mul: 0x7e,
  i64Or: 0x84,
  i64ShrU: 0x88,
  i64ExtendI32U: 0xad,
  bulk: 0xfc,
  simd: 0xfd,
  memorySize: 0x3f,
} as const;

export const TYPE = {
  i32: 0x7f,
  i64: 0x7e,
  f32: 0x7d,
  f64: 0x7c,
  v128: 0x7b,
  funcref: 0x70,
  externref: 0x6f,
} as const;

/** What stands behind an opcode; those with a case of their own in `scan.ts` are `other`. */
export const FOLLOWS = {
  refused: 0,
  nothing: 1,
  index: 2,
  local: 3,
  global: 4,
  memory: 5,
  zero: 6,
  signed32: 7,
  signed64: 8,
  float32: 9,
  float64: 10,
  other: 11,
} as const;

function rangeOf(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, index) => from + index);
}

/** By opcode of one byte. */
export const FOLLOWING: Uint8Array = (() => {
  const table = new Uint8Array(256);
  const set = (follows: number, opcodes: number[]) => {
    for (const opcode of opcodes) table[opcode] = follows;
  };
  set(FOLLOWS.nothing, [0x01, 0x1a, 0x1b, 0xd1, ...rangeOf(0x45, 0xc4)]);
  set(FOLLOWS.other, [0x00, ...rangeOf(0x02, 0x05), ...rangeOf(0x0b, 0x13), 0x1c, 0x40, 0xd0, 0xfc, 0xfd]);
  set(FOLLOWS.local, [0x20, 0x21, 0x22]);
  set(FOLLOWS.global, [0x23, 0x24]);
  set(FOLLOWS.index, [0x25, 0x26, 0xd2]);
  set(FOLLOWS.memory, rangeOf(0x28, 0x3e));
  set(FOLLOWS.zero, [0x3f]);
  set(FOLLOWS.signed32, [0x41]);
  set(FOLLOWS.signed64, [0x42]);
  set(FOLLOWS.float32, [0x43]);
  set(FOLLOWS.float64, [0x44]);
  return table;
})();

/** How many operands more there are after it; what takes some and gives one counts what it took less one. */
export const STACK_CHANGE: Int8Array = (() => {
  const table = new Int8Array(256);
  const set = (change: number, ...opcodes: number[][]) => {
    for (const opcode of opcodes.flat()) table[opcode] = change;
  };
  set(1, [0x20, 0x23, 0x3f, 0xd0, 0xd2], rangeOf(0x41, 0x44));
  set(
    -1,
    [0x1a, 0x21, 0x24, 0x04, 0x0d, 0x0e],
    rangeOf(0x46, 0x4f),
    rangeOf(0x51, 0x66),
    rangeOf(0x6a, 0x78),
  );
  set(-1, rangeOf(0x7c, 0x8a), rangeOf(0x92, 0x98), rangeOf(0xa0, 0xa6));
  set(-2, [0x1b, 0x1c, 0x26], rangeOf(0x36, 0x3e));
  return table;
})();

/** The same behind the prefix of bulk operations, by number. */
export const BULK_STACK_CHANGE: readonly number[] = [
  ...[0, 0, 0, 0, 0, 0, 0, 0, -3, 0, -3, -3, -3, 0, -3, -1, 1, -3],
];

/** Behind the prefix of vectors; where it says 0 there may be fewer operands than thought, never more. */
export function simdStackChange(number: number): number {
  if (number === 12) return 1;
  if (number === 11 || number === 82 || (number >= 88 && number <= 91)) return -2;
  const binary = number === 13 || number === 14 || (number >= 35 && number <= 76);
  return binary || (number >= 78 && number <= 81) || (number >= 84 && number <= 87) ? -1 : 0;
}

/** Which proposal an opcode that is refused belongs to. */
export function proposalOf(opcode: number): string | undefined {
  if ([0x06, 0x07, 0x08, 0x09, 0x0a, 0x18, 0x19, 0x1f].includes(opcode)) return "exception handling";
  if ([0x14, 0x15, 0xd4, 0xd5, 0xd6].includes(opcode)) return "typed function references";
  if (opcode === 0xd3 || opcode === 0xfb) return "garbage collection";
  if (opcode === 0xfe) return "threads and shared memory";
  return undefined;
}
