/**
 * Programs of a few hundred bytes that make given system calls and nothing else: an attacker's, without a
 * compiler or a C library, which no machine has to have.
 */

/** A number, the address of these bytes, or what the call before answered. */
export type CallArgument = number | bigint | Uint8Array | "result";

export interface SystemCall {
  number: number;
  args: readonly CallArgument[];
}

export interface ProgramOptions {
  /** Begin again after the last call, for ever; without it the program exits with 0. */
  forever?: boolean;
  /** Go on after a call that failed; without it the program exits with that call's error number. */
  regardless?: boolean;
  /** Enter the kernel as a 32-bit program does (x64 only). */
  gate?: "int80";
}

/** [x64, arm64], from the kernel's tables. Beyond 424 all architectures count alike. */
const NUMBERS = {
  read: [0, 63],
  write: [1, 64],
  mmap: [9, 222],
  ioctl: [16, 29],
  shmget: [29, 194],
  pause: [34, -1],
  getpid: [39, 172],
  socket: [41, 198],
  bind: [49, 200],
  socketpair: [53, 199],
  clone: [56, 220],
  kill: [62, 129],
  semget: [64, 190],
  msgget: [68, 186],
  fcntl: [72, 25],
  chdir: [80, 49],
  chmod: [90, -1],
  ptrace: [101, 117],
  syslog: [103, 116],
  setuid: [105, 146],
  setsid: [112, 157],
  capset: [126, 91],
  personality: [135, 92],
  setpriority: [141, 140],
  sched_setscheduler: [144, 119],
  mlockall: [151, 230],
  modify_ldt: [154, -1],
  pivot_root: [155, 41],
  prctl: [157, 167],
  chroot: [161, 51],
  acct: [163, 89],
  settimeofday: [164, 170],
  mount: [165, 40],
  umount2: [166, 39],
  swapon: [167, 224],
  reboot: [169, 142],
  sethostname: [170, 161],
  iopl: [172, -1],
  ioperm: [173, -1],
  init_module: [175, 105],
  delete_module: [176, 106],
  quotactl: [179, 60],
  sched_setaffinity: [203, 122],
  exit: [231, 94],
  mbind: [237, 235],
  mq_open: [240, 180],
  kexec_load: [246, 104],
  add_key: [248, 217],
  request_key: [249, 218],
  keyctl: [250, 219],
  ioprio_set: [251, 30],
  openat: [257, 56],
  mknodat: [259, 33],
  ppoll: [271, 73],
  unshare: [272, 97],
  vmsplice: [278, 75],
  move_pages: [279, 239],
  pipe2: [293, 59],
  perf_event_open: [298, 241],
  fanotify_init: [300, 262],
  prlimit64: [302, 261],
  name_to_handle_at: [303, 264],
  open_by_handle_at: [304, 265],
  setns: [308, 268],
  process_vm_readv: [310, 270],
  process_vm_writev: [311, 271],
  kcmp: [312, 272],
  finit_module: [313, 273],
  sched_setattr: [314, 274],
  seccomp: [317, 277],
  memfd_create: [319, 279],
  bpf: [321, 280],
  userfaultfd: [323, 282],
  io_uring_setup: [425, 425],
  open_tree: [428, 428],
  fsopen: [430, 430],
  pidfd_open: [434, 434],
  clone3: [435, 435],
  pidfd_getfd: [438, 438],
  mount_setattr: [442, 442],
  memfd_secret: [447, 447],
} as const;

export type CallName = keyof typeof NUMBERS;

const COLUMN = process.arch === "arm64" ? 1 : 0;

/** Whether this machine has such a call at all. */
export const hasCall = (name: CallName) => NUMBERS[name][COLUMN] >= 0;

export const call = (name: CallName, ...args: CallArgument[]): SystemCall => ({
  number: NUMBERS[name][COLUMN],
  args,
});

/** Bytes for a path or name, ended as C wants it. */
export const cstring = (text: string) => Buffer.from(`${text}\0`, "latin1");

const BASE = 0x400000;
const HEADERS = 64 + 56;
/** Behind the file's bytes, zero: for what calls write. */
const SPARE_BYTES = 1 << 16;

/** Machine code for one architecture; the sizes do not depend on the values. */
interface Assembler {
  machine: number;
  load(index: number, value: bigint): Buffer;
  loadResult(index: number): Buffer;
  /** Enter the kernel and keep the answer. */
  enter(number: number, gate: "int80" | undefined): Buffer;
  /** Jump when the answer was an error; `distance` from this instruction's first byte. */
  branchOnError(distance: number): Buffer;
  branch(distance: number): Buffer;
  exitWithError(): Buffer;
}

function int32(...parts: (readonly number[] | number)[]): Buffer {
  return Buffer.concat(
    parts.map((part) => {
      if (typeof part !== "number") return Buffer.from(part);
      const bytes = Buffer.alloc(4);
      bytes.writeInt32LE(part | 0);
      return bytes;
    }),
  );
}

const X64: Assembler = {
  machine: 62,
  load(index, value) {
    // mov to rdi, rsi, rdx, r10, r8, r9
    const opcode = [
      [0x48, 0xbf],
      [0x48, 0xbe],
      [0x48, 0xba],
      [0x49, 0xba],
      [0x49, 0xb8],
      [0x49, 0xb9],
    ][index];
    const immediate = Buffer.alloc(8);
    immediate.writeBigUInt64LE(BigInt.asUintN(64, value));
    return Buffer.concat([Buffer.from(opcode ?? []), immediate]);
  },
  loadResult(index) {
    const from = [
      [0x4c, 0x89, 0xe7],
      [0x4c, 0x89, 0xe6],
      [0x4c, 0x89, 0xe2],
      [0x4d, 0x89, 0xe2],
    ];
    return Buffer.from(from[index] ?? [0x4d, 0x89, index === 4 ? 0xe0 : 0xe1]);
  },
  enter: (number, gate) =>
    int32([0xb8], number, gate === "int80" ? [0xcd, 0x80] : [0x0f, 0x05], [0x49, 0x89, 0xc4]),
  // cmp rax, -4095; jae
  branchOnError: (distance) => int32([0x48, 0x3d], -4095, [0x0f, 0x83], distance - 12),
  branch: (distance) => int32([0xe9], distance - 5),
  exitWithError: () => int32([0xf7, 0xd8, 0x89, 0xc7, 0xb8], NUMBERS.exit[0], [0x0f, 0x05]),
};

const arm64Load = (register: number, value: bigint) =>
  int32(
    ...[0, 1, 2, 3].map((part) => {
      const word = Number((BigInt.asUintN(64, value) >> BigInt(16 * part)) & 0xffffn);
      return (part === 0 ? 0xd2800000 : 0xf2800000) | (part << 21) | (word << 5) | register;
    }),
  );

const ARM64: Assembler = {
  machine: 183,
  load: arm64Load,
  loadResult: (index) => int32(0xaa1303e0 | index),
  enter: (number) => Buffer.concat([arm64Load(8, BigInt(number)), int32(0xd4000001, 0xaa0003f3)]),
  // cmn x0, #4095; b.hs
  branchOnError: (distance) => int32(0xb13ffc1f, 0x54000002 | ((((distance - 4) / 4) & 0x7ffff) << 5)),
  branch: (distance) => int32(0x14000000 | ((distance / 4) & 0x3ffffff)),
  exitWithError: () =>
    Buffer.concat([int32(0xcb0003e0), arm64Load(8, BigInt(NUMBERS.exit[1])), int32(0xd4000001)]),
};

function assemble(
  assembler: Assembler,
  calls: readonly SystemCall[],
  addressOf: (bytes: Uint8Array) => number,
  { forever = false, regardless = false, gate }: ProgramOptions,
  failAt: number,
): Buffer {
  const code: Buffer[] = [];
  let length = 0;
  const add = (bytes: Buffer) => {
    code.push(bytes);
    length += bytes.length;
  };
  for (const { number, args } of calls) {
    for (const [index, value] of args.entries()) {
      if (value === "result") add(assembler.loadResult(index));
      else add(assembler.load(index, BigInt(typeof value === "object" ? addressOf(value) : value)));
    }
    add(assembler.enter(number, gate));
    if (!regardless) add(assembler.branchOnError(failAt - length));
  }
  if (forever) add(assembler.branch(-length));
  else {
    add(assembler.load(0, 0n));
    add(assembler.enter(NUMBERS.exit[COLUMN], undefined));
  }
  add(assembler.exitWithError());
  return Buffer.concat(code);
}

function elfHeader(machine: number, size: number): Buffer {
  const header = Buffer.alloc(HEADERS);
  header.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  header.writeUInt16LE(2, 16); // ET_EXEC
  header.writeUInt16LE(machine, 18);
  header.writeUInt32LE(1, 20);
  header.writeBigUInt64LE(BigInt(BASE + HEADERS), 24); // entry
  header.writeBigUInt64LE(64n, 32); // program headers
  for (const [at, value] of [
    [52, 64],
    [54, 56],
    [56, 1],
  ] as const)
    header.writeUInt16LE(value, at);
  header.writeUInt32LE(1, 64); // PT_LOAD
  header.writeUInt32LE(7, 68); // readable, writable, executable
  for (const at of [80, 88]) header.writeBigUInt64LE(BigInt(BASE), at);
  header.writeBigUInt64LE(BigInt(size), 96);
  header.writeBigUInt64LE(BigInt(size + SPARE_BYTES), 104);
  header.writeBigUInt64LE(0x1000n, 112);
  return header;
}

/**
 * An executable file for this machine (x64, arm64) that makes these calls in order. It exits with 0, or with
 * the error number of the first call that failed; being killed for a call shows as 128 + SIGSYS in a shell.
 */
export function machineProgram(calls: readonly SystemCall[], options: ProgramOptions = {}): Buffer {
  const assembler = process.arch === "arm64" ? ARM64 : X64;
  const length = assemble(assembler, calls, () => 0, options, 0).length;
  const failAt = length - assembler.exitWithError().length;
  const data: Uint8Array[] = [];
  let end = BASE + HEADERS + length;
  const addressOf = (bytes: Uint8Array) => {
    const padding = Buffer.alloc((16 - (end % 16)) % 16);
    const address = end + padding.length;
    data.push(padding, bytes);
    end = address + bytes.length;
    return address;
  };
  const code = assemble(assembler, calls, addressOf, options, failAt);
  return Buffer.concat([elfHeader(assembler.machine, end - BASE), code, ...data]);
}
