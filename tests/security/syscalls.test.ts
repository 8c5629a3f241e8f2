import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { asFiles } from "../support/attack.ts";
import { type AttackedHost, HOSTS, openHost } from "../support/attacked-host.ts";
import { hostState } from "../support/host-state.ts";
import {
  type CallName,
  call,
  cstring,
  hasCall,
  machineProgram,
  type SystemCall,
} from "../support/machine-program.ts";

const EPERM = 1;
const EINVAL = 22;
const ENOSYS = 38;
const EAFNOSUPPORT = 97;
const AT_FDCWD = -100;
const zeros = Buffer.alloc(256);
const words = (...values: number[]) => Buffer.from(Uint32Array.from(values).buffer);

/** Calls the filter refuses whatever they are given. Nothing here would do harm if it were let through. */
const REFUSED: Record<string, SystemCall[]> = {
  mount: [call("mount", cstring("none"), cstring("/tmp"), cstring("tmpfs"), 0, 0)],
  umount2: [call("umount2", cstring("/tmp"), 2)],
  pivot_root: [call("pivot_root", cstring("/tmp"), cstring("/tmp"))],
  chroot: [call("chroot", cstring("/tmp"))],
  unshare: [call("unshare", 0x10000000)],
  "unshare of mounts": [call("unshare", 0x20000)],
  setns: [call("openat", AT_FDCWD, cstring("/proc/self/ns/net"), 0), call("setns", "result", 0)],
  ptrace: [call("ptrace", 0, 0, 0, 0)],
  process_vm_readv: [call("process_vm_readv", 1, zeros, 1, zeros, 1, 0)],
  process_vm_writev: [call("process_vm_writev", 1, zeros, 1, zeros, 1, 0)],
  kcmp: [call("kcmp", 1, 1, 0, 0, 0)],
  bpf: [call("bpf", 0, zeros, 64)],
  io_uring_setup: [call("io_uring_setup", 1, zeros)],
  userfaultfd: [call("userfaultfd", 1)],
  keyctl: [call("keyctl", 0, -3, 1)],
  add_key: [call("add_key", cstring("user"), cstring("mine"), zeros, 8, -3)],
  request_key: [call("request_key", cstring("user"), cstring("mine"), 0, -3)],
  perf_event_open: [call("perf_event_open", zeros, 0, -1, -1, 0)],
  personality: [call("personality", 0x0040000)],
  kexec_load: [call("kexec_load", 0, 0, 0, 0)],
  init_module: [call("init_module", zeros, 8, cstring(""))],
  finit_module: [call("finit_module", -1, cstring(""), 0)],
  delete_module: [call("delete_module", cstring("no-such-module"), 0)],
  open_by_handle_at: [call("open_by_handle_at", AT_FDCWD, words(8, 1, 2, 0), 0)],
  name_to_handle_at: [call("name_to_handle_at", AT_FDCWD, cstring("/"), words(128, 0), zeros, 0)],
  pidfd_getfd: [call("pidfd_open", 1, 0), call("pidfd_getfd", "result", 0, 0)],
  reboot: [call("reboot", 0, 0, 0, 0)],
  swapon: [call("swapon", cstring("/no/such/file"), 0)],
  acct: [call("acct", cstring("/no/such/file"))],
  quotactl: [call("quotactl", 0x80000100, 0, 0, 0)],
  syslog: [call("syslog", 3, zeros, 256)],
  fanotify_init: [call("fanotify_init", 0, 0)],
  open_tree: [call("open_tree", AT_FDCWD, cstring("/"), 0)],
  fsopen: [call("fsopen", cstring("tmpfs"), 0)],
  mount_setattr: [call("mount_setattr", AT_FDCWD, cstring("/"), 0, zeros, 32)],
  memfd_secret: [call("memfd_secret", 0)],
  vmsplice: [call("vmsplice", 1, zeros, 1, 0)],
  mbind: [call("mbind", 0, 0, 0, 0, 0, 0)],
  move_pages: [call("move_pages", 0, 0, 0, 0, 0, 0)],
  modify_ldt: [call("modify_ldt", 0, zeros, 16)],
  iopl: [call("iopl", 3)],
  ioperm: [call("ioperm", 0x80, 1, 1)],
  "clone into a user namespace": [call("clone", 0x10000011, 0, 0, 0, 0)],
  "clone into a network namespace": [call("clone", 0x40000011, 0, 0, 0, 0)],
  TIOCSTI: [call("ioctl", 0, 0x5412, cstring("x"))],
  "TIOCSTI with high bits": [call("ioctl", 0, 0x100005412n, cstring("x"))],
  TIOCLINUX: [call("ioctl", 0, 0x541c, zeros)],
};

/** Calls that are there, but for which the program has no rights. */
const WITHOUT_RIGHTS: Record<string, SystemCall[]> = {
  setuid: [call("setuid", 0)],
  sethostname: [call("sethostname", cstring("taken"), 5)],
  settimeofday: [call("settimeofday", words(1, 0, 0, 0), 0)],
  "mknod of a disk": [call("mknodat", AT_FDCWD, cstring("/tmp/disk"), 0o60666, 0xfe00)],
  "mknod of memory": [call("mknodat", AT_FDCWD, cstring("/dev/shm/mem"), 0o20666, 0x0101)],
  capset: [call("capset", words(0x20080522, 0), words(-1, -1, -1, -1, -1, -1))],
  "a raw socket": [call("socket", 2, 3, 1)],
  "the socket of the kernel's audit": [call("socket", 16, 3, 9), call("bind", "result", words(16, 0, 1), 12)],
};

const FAMILIES: Record<string, number> = {
  AX25: 3,
  PACKET: 17,
  CAN: 29,
  BLUETOOTH: 31,
  ALG: 38,
  VSOCK: 40,
  XDP: 44,
};

const programs = {
  ...Object.fromEntries(
    Object.entries({ ...REFUSED, ...WITHOUT_RIGHTS })
      .filter(([name]) => !(name in { modify_ldt: 0, iopl: 0, ioperm: 0 }) || hasCall(name as CallName))
      .map(([name, calls]) => [name, machineProgram(calls)]),
  ),
  ...Object.fromEntries(
    Object.entries(FAMILIES).map(([name, family]) => [
      `socket ${name}`,
      machineProgram([call("socket", family, 2, 0)]),
    ]),
  ),
  clone3: machineProgram([call("clone3", zeros, 88)]),
  "pair of VSOCK": machineProgram([call("socketpair", 40, 1, 0, zeros)]),
  // Nothing the filter has to do with: the machine works.
  getpid: machineProgram([call("getpid")]),
};

/** `name=exit code` per program, in one sandbox. */
const EVERY = 'cd /attack; for name in *; do "./$name" >/dev/null 2>&1 </dev/null; echo "$name=$?"; done';

function answersOf(text: string): Record<string, number> {
  const lines = text.trim().split("\n");
  return Object.fromEntries(
    lines.map((line) => [line.slice(0, line.indexOf("=")), Number(line.slice(line.indexOf("=") + 1))]),
  );
}

describe.each(HOSTS)("with %s", (name) => {
  let host: AttackedHost;
  beforeAll(async () => {
    host = await openHost(name);
  });
  afterAll(() => host?.[Symbol.asyncDispose]());

  describe("15 system calls", () => {
    it("[MU-3] what no tool needs and an attacker would like is refused, and changes nothing", async () => {
      const before = hostState();
      const damage = await host.attack({ sh: EVERY, files: asFiles(programs) });
      const answers = answersOf(damage.stdout);
      const expected = Object.fromEntries(
        Object.keys(programs).map((each) => {
          if (each === "getpid") return [each, 0];
          if (each === "clone3") return [each, ENOSYS];
          // There is no user 0 in its namespace to become.
          if (each === "setuid") return [each, EINVAL];
          return [each, /^(socket|pair of) /.test(each) ? EAFNOSUPPORT : EPERM];
        }),
      );
      expect(answers).toEqual(expected);
      expect(damage.left).toEqual([]);
      expect(hostState()).toEqual(before);
    });

    it.runIf(process.arch === "x64")("[MU-3] neither 32-bit nor x32 calls get past the filter", async () => {
      const files = asFiles({
        x32: machineProgram([{ number: 0x40000000 + 39, args: [] }]),
        "x32 ptrace": machineProgram([{ number: 0x40000000 + 521, args: [0, 0, 0, 0] }]),
        int80: machineProgram([{ number: 20, args: [] }], { gate: "int80" }),
      });
      const answers = answersOf((await host.attack({ sh: EVERY, files })).stdout);
      // SIGSYS from the filter; a kernel without 32-bit programs answers their gate with SIGSEGV.
      expect(answers).toMatchObject({ x32: 128 + 31, "x32 ptrace": 128 + 31 });
      expect([128 + 31, 128 + 11]).toContain(answers.int80);
    });

    it("[MU-3] no device but the harmless ones can be opened, and no setuid program gives rights", async () => {
      const { stdout } = await host.attack({
        sh: `ls /dev; for d in /dev/mem /dev/kmem /dev/kvm /dev/fuse /dev/sda /dev/vda /dev/net/tun; do
            (: <$d) 2>/dev/null && echo "opened $d"; done
          find / -xdev -perm /6000 -type f 2>/dev/null | while read -r f; do [ -x "$f" ] && echo "setuid $f"; done
          for c in "su -c id" "mount" "newgrp root" "passwd -S root"; do $c </dev/null 2>/dev/null | grep -c uid=0; done
          cp /usr/bin/id /tmp/id; chmod 6755 /tmp/id; stat -c %u /tmp/id; /tmp/id -u; grep NoNewPrivs /proc/self/status`,
      });
      const lines = stdout.trim().split("\n");
      const harmless = [
        "core",
        "fd",
        "full",
        "null",
        "ptmx",
        "pts",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
      ];
      const devices = lines.slice(
        0,
        lines.findIndex((line) => !/^[a-z0-9]+$/.test(line) || /^\d/.test(line)),
      );
      expect(
        devices.filter((device) => ![...harmless, "tty", "urandom", "zero", "console"].includes(device)),
      ).toEqual([]);
      expect(stdout).not.toMatch(/opened/);
      expect(lines.slice(-7)).toEqual(["0", "0", "0", "0", "1000", "1000", "NoNewPrivs:\t1"]);
    });
  });
});

it("15 the attacks are real: without a sandbox the same programs are not refused so", () => {
  const dir = mkdtempSync(join(tmpdir(), "cds-test-"));
  try {
    const outside = (program: Buffer) => {
      const path = join(dir, "program");
      writeFileSync(path, program, { mode: 0o755 });
      return spawnSync(path, { timeout: 10_000 }).status;
    };
    // Those that any user may try on any machine.
    for (const free of ["ptrace", "personality", "vmsplice", "mbind", "move_pages", "memfd_secret"]) {
      expect([EPERM, null], free).not.toContain(outside(machineProgram(REFUSED[free] ?? [])));
    }
    expect(outside(programs.clone3)).not.toBe(ENOSYS);
    expect(outside(programs.getpid)).toBe(0);
    expect(outside(machineProgram([call("chdir", cstring("/no/such/directory"))]))).toBe(2);
  } finally {
    rmSync(dir, { recursive: true });
  }
});
