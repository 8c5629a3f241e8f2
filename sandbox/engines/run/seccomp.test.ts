import { describe, expect, it } from "vitest";
import { seccompFilter } from "./seccomp.ts";
import { SYSCALL_TABLES } from "./syscalls.ts";

const ALLOW = 0x7fff0000;
const KILL = 0x80000000;
const errno = (number: number) => 0x00050000 | number;

/** What the kernel does with such a program, for the five instructions the filter uses. */
function run(filter: Buffer, call: { audit: number; number: number; args?: number[] }): number {
  const data = Buffer.alloc(64);
  data.writeUInt32LE(call.number >>> 0, 0);
  data.writeUInt32LE(call.audit, 4);
  for (const [index, value] of (call.args ?? []).entries()) data.writeUInt32LE(value >>> 0, 16 + 8 * index);
  let word = 0;
  for (let at = 0; at * 8 < filter.length; at += 1) {
    const code = filter.readUInt16LE(at * 8);
    const k = filter.readUInt32LE(at * 8 + 4);
    if (code === 0x06) return k;
    if (code === 0x20) word = data.readUInt32LE(k);
    else {
      const yes = code === 0x15 ? word === k : code === 0x35 ? word >= k : (word & k) !== 0;
      at += filter.readUInt8(at * 8 + (yes ? 2 : 3));
    }
  }
  throw new Error("fell off the end");
}

describe.each(["x64", "arm64"])("[MU-3] the system-call filter on %s", (architecture) => {
  const table = SYSCALL_TABLES[architecture];
  if (table === undefined) throw new Error(architecture);
  const filter = seccompFilter(architecture);
  const { audit } = table;
  const answer = (number: number, ...args: number[]) => run(filter, { audit, number, args });

  it("kills what comes from another architecture", () => {
    for (const other of [0x40000003, 0xc000003e, 0xc00000b7, 0].filter((value) => value !== audit)) {
      expect(run(filter, { audit: other, number: 1 })).toBe(KILL);
    }
    if (table.x32) expect(answer(0x40000000 + 1)).toBe(KILL);
  });

  it("refuses every listed call and none beside it", () => {
    const denied = new Set(Object.values(table.denied));
    expect(denied.size).toBe(Object.keys(table.denied).length);
    for (const number of denied) expect(answer(number)).toBe(errno(1));
    const special = [table.clone, table.clone3, table.ioctl, table.socket, table.socketpair];
    for (let number = 0; number < 480; number += 1) {
      if (!denied.has(number) && !special.includes(number)) expect(answer(number), `${number}`).toBe(ALLOW);
    }
  });

  it("lets processes and threads start, but no namespace", () => {
    expect(answer(table.clone3)).toBe(errno(38));
    expect(answer(table.clone, 0x01200011)).toBe(ALLOW);
    expect(answer(table.clone, 0x003d0f00)).toBe(ALLOW);
    for (const flag of [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000]) {
      expect(answer(table.clone, flag | 17)).toBe(errno(1));
    }
  });

  it("lets only known families make sockets, and nobody type into a terminal or give it a driver", () => {
    for (const make of [table.socket, table.socketpair]) {
      for (const family of [1, 2, 10, 16]) expect(answer(make, family, 1)).toBe(ALLOW);
      for (const family of [0, 17, 29, 38, 40, 44]) expect(answer(make, family, 1)).toBe(errno(97));
    }
    expect(answer(table.ioctl, 0, 0x5412)).toBe(errno(1));
    expect(answer(table.ioctl, 0, 0x541c)).toBe(errno(1));
    expect(answer(table.ioctl, 0, 0x5423)).toBe(errno(1));
    expect(answer(table.ioctl, 0, 0x5413)).toBe(ALLOW);
  });
});

it("an architecture without a table has no filter, and so no sandbox", () => {
  expect(() => seccompFilter("ia32")).toThrow(/architecture ia32/);
});
