import { AppError } from "#schemas";
import { SYSCALL_TABLES, type SyscallTable } from "./syscalls.ts";

/** linux/bpf_common.h: load word, jump if equal / greater or equal / any bit set, return. */
const LOAD = 0x20;
const EQUAL = 0x15;
const AT_LEAST = 0x35;
const ANY_BIT = 0x45;
const RETURN = 0x06;

/** linux/seccomp.h: actions, and offsets into struct seccomp_data. */
const ALLOW = 0x7fff0000;
const KILL_PROCESS = 0x80000000;
const ERRNO = 0x00050000;
const NUMBER = 0;
const ARCHITECTURE = 4;
/** The low half of an argument on a little-endian machine: all the kernel itself reads of an int. */
const argument = (index: number) => 16 + 8 * index;

const EPERM = 1;
/** clone3 has its flags behind a pointer a filter cannot follow; on ENOSYS libc falls back to clone. */
const ENOSYS = 38;
const EAFNOSUPPORT = 97;

/** CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET. */
const NEW_NAMESPACES = 0x7e020000;
/** Two ways of putting words into somebody's terminal. */
const TIOCSTI = 0x5412;
const TIOCLINUX = 0x541c;
/** Gives a terminal another line discipline: modems and radios, of which the kernel loads old and little used drivers. */
const TIOCSETD = 0x5423;
/** UNIX, INET, INET6, NETLINK (getifaddrs needs it): not VSOCK, PACKET, ALG and forty more. */
const FAMILIES = [1, 2, 10, 16];
const X32_BIT = 0x40000000;

const ENDINGS = { allow: ALLOW, kill: KILL_PROCESS, eperm: ERRNO | EPERM, enosys: ERRNO | ENOSYS };

/** A jump leads to an ending, or skips so many of the instructions that follow. */
type Target = keyof typeof ENDINGS | number;
interface Instruction {
  code: number;
  k: number;
  yes: Target;
  no: Target;
}

const load = (offset: number): Instruction => ({ code: LOAD, k: offset, yes: 0, no: 0 });
const leave = (k: number): Instruction => ({ code: RETURN, k, yes: 0, no: 0 });
const jump = (code: number, k: number, yes: Target, no: Target = 0): Instruction => ({ code, k, yes, no });

/** `body`, for this one system call only; it ends in a return. */
function onCall(number: number, body: Instruction[]): Instruction[] {
  return [jump(EQUAL, number, 0, body.length), ...body];
}

function program(table: SyscallTable): Instruction[] {
  const family = [
    load(argument(0)),
    ...FAMILIES.map((known) => jump(EQUAL, known, "allow")),
    leave(ERRNO | EAFNOSUPPORT),
  ];
  return [
    load(ARCHITECTURE),
    jump(EQUAL, table.audit, 0, "kill"),
    load(NUMBER),
    ...(table.x32 ? [jump(AT_LEAST, X32_BIT, "kill")] : []),
    ...Object.values(table.denied).map((number) => jump(EQUAL, number, "eperm")),
    jump(EQUAL, table.clone3, "enosys"),
    ...onCall(table.clone, [load(argument(0)), jump(ANY_BIT, NEW_NAMESPACES, "eperm"), leave(ALLOW)]),
    ...onCall(table.ioctl, [
      load(argument(1)),
      jump(EQUAL, TIOCSTI, "eperm"),
      jump(EQUAL, TIOCLINUX, "eperm"),
      jump(EQUAL, TIOCSETD, "eperm"),
      leave(ALLOW),
    ]),
    ...onCall(table.socket, family),
    ...onCall(table.socketpair, family),
  ];
}

/** Eight bytes per instruction (struct sock_filter), jumps resolved to the endings at the end. */
function assemble(body: readonly Instruction[]): Buffer {
  const endings = Object.keys(ENDINGS);
  const all = [...body, ...Object.values(ENDINGS).map(leave)];
  const bytes = Buffer.alloc(all.length * 8);
  for (const [index, { code, k, yes, no }] of all.entries()) {
    // writeUInt8 refuses a distance above 255, the most an instruction can jump.
    const distance = (to: Target) =>
      typeof to === "number" ? to : body.length + endings.indexOf(to) - index - 1;
    bytes.writeUInt16LE(code, index * 8);
    bytes.writeUInt8(distance(yes), index * 8 + 2);
    bytes.writeUInt8(distance(no), index * 8 + 3);
    bytes.writeUInt32LE(k >>> 0, index * 8 + 4);
  }
  return bytes;
}

/**
 * The system-call filter for `bwrap --seccomp`: a foreign architecture or an x32 number kills the process;
 * what no tool needs and an attacker would like fails with EPERM; all else is allowed.
 * Throws AppError EngineUnavailable for an architecture without a table.
 */
export function seccompFilter(architecture: string): Buffer {
  const table = SYSCALL_TABLES[architecture];
  if (table === undefined) {
    throw new AppError("EngineUnavailable", `No system-call filter for the architecture ${architecture}.`, {
      hint: "Sandboxed runs work on x64 and arm64.",
    });
  }
  return assemble(program(table));
}
