import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { findImage, KERNEL_APPEND, whyNoImage } from "../image.ts";
import { INSIDE, machineArguments } from "../qemu/machine.ts";
import { AgentClient } from "./agent-client.ts";
import type { ExecRequest } from "./program.ts";

/** The image and its agent in a real machine, without the jail and the templates of the driver. */

const QEMU = "/usr/bin/qemu-system-x86_64";
const image = findImage();
const missing = whyNoImage() ?? (existsSync(QEMU) ? undefined : "no QEMU here");
const MIB = 1024 * 1024;
const BOOT_MS = 300_000;
const DISK_BYTES = 16 * MIB;

let dir: string;
let machine: ChildProcess;
let stream: Socket;
let agent: AgentClient;

async function boot(): Promise<void> {
  if (image === undefined) throw new Error("no image");
  dir = await mkdtemp(join(tmpdir(), "cds-machine-"));
  const socket = join(dir, "agent");
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  const connected = new Promise<Socket>((resolve) => server.once("connection", resolve));
  const args = machineArguments({ memoryBytes: 256 * MIB, cpus: 1, append: KERNEL_APPEND, incoming: false });
  const outside: [string, string][] = [
    [INSIDE.kernel, image.kernel],
    [INSIDE.initrd, image.initrd],
    [INSIDE.rootfs, image.rootfs],
    [INSIDE.socket, socket],
  ];
  const here = args.map((arg) => outside.reduce((text, [from, to]) => text.replace(from, to), arg));
  machine = spawn(QEMU, here, { stdio: ["pipe", "ignore", "inherit"] });
  stream = await connected;
  server.close();
  agent = await AgentClient.connect(stream, { readyMs: BOOT_MS });
}

const run = (argv: readonly string[], more: Partial<ExecRequest> = {}) =>
  agent.exec({ argv, env: {}, timeoutMs: 100_000, outputBytes: MIB, ...more });
const sh = (script: string, more: Partial<ExecRequest> = {}) => run(["sh", "-c", script], more);
const said = async (script: string) => String((await sh(script)).stdout).trim();

describe.skipIf(missing !== undefined)(
  `the guest${missing === undefined ? "" : ` (skipped: ${missing})`}`,
  () => {
    beforeAll(async () => {
      await boot();
      await agent.prepare({ hostname: "probe", diskBytes: DISK_BYTES });
    }, BOOT_MS);
    afterAll(async () => {
      machine?.kill("SIGKILL");
      await rm(dir, { recursive: true, force: true });
    });

    it("[SB-micro] runs our Node and Python, as a user without rights, with the host's time", async () => {
      const node = await run(["node", "-p", "process.version + os.hostname()"]);
      expect(String(node.stdout)).toBe(`${process.version}probe\n`);
      const python = await run(["python", "-c", "import hashlib, json, sqlite3, ssl; print('ä' * 3)"]);
      expect(String(python.stdout)).toBe("äää\n");
      expect(await said("id; pwd; echo $HOME $LANG")).toBe(
        "uid=1000(user) gid=1000(user) groups=1000(user)\n/work\n/home/user C.UTF-8",
      );
      const minute = 60_000;
      expect(Math.abs(Number(await said("date +%s")) * 1000 - Date.now())).toBeLessThan(minute);
    });

    it("[SB-micro] has no network, and nothing to become root by", async () => {
      expect(await said("ls /sys/class/net")).toBe("lo");
      expect(await said("find / -xdev -perm /6000")).toBe("");
      const tries = [
        "/usr/x",
        "/etc/x",
        "/run/x",
        "/dev/x",
        "/sys/fs/cgroup/user/memory.max",
        "/proc/sysrq-trigger",
      ];
      expect(
        await said(tries.map((path) => `(echo 1 > ${path}) 2>/dev/null && echo ${path}`).join("; ")),
      ).toBe("");
      expect((await sh("kill -9 1; cat /dev/vda /dev/vport* /run/cds/x > /dev/null")).code).not.toBe(0);
      // A user namespace of its own, in which it would be root: Python 3.11 knows no unshare, so by the C library.
      const unshare = "import ctypes; print(ctypes.CDLL(None).unshare(0x10000000))";
      expect(String((await run(["python3", "-c", unshare])).stdout)).toBe("-1\n");
      await agent.ping();
    });

    it("[SB-micro] out of memory, a program dies, and the machine works on", async () => {
      const bomb = await run(["python3", "-c", "x = [bytes(1 << 20) for _ in iter(int, 1)]"]);
      expect(bomb).toMatchObject({ code: null, signal: "SIGKILL", limit: "memory" });
      const small = await sh("head -c 50000000 /dev/zero | tail -c 50000000 | wc -c", {
        memoryBytes: 20 * MIB,
      });
      expect(small).toMatchObject({ limit: "memory" });
      expect(await said("echo alive")).toBe("alive");
    });

    it("[SB-micro] a fork bomb stays small, and ends with its program", async () => {
      const bomb = await sh("f() { f | f & }; f; wait; sleep 2; exit 1", { processes: 20 });
      expect(bomb.code).not.toBe(0);
      await sh("setsid sleep 1000 > /dev/null 2>&1 & exit 0");
      expect(await agent.stats()).toMatchObject({ processes: 0 });
      expect(await said("echo alive")).toBe("alive");
    });

    it("[SB-micro] a full disk is full, for files and for directories", async () => {
      expect(await sh("head -c 100000000 /dev/zero > /work/big")).toMatchObject({ code: 1 });
      const { diskBytes, diskLimitBytes } = await agent.stats();
      expect(diskLimitBytes).toBe(DISK_BYTES);
      expect(diskBytes).toBeGreaterThan(DISK_BYTES - MIB);
      await expect(agent.write("more", Buffer.alloc(MIB))).rejects.toMatchObject({ code: "QuotaExceeded" });
      await sh("rm /work/*");
      const directories = "import itertools, os\nfor n in itertools.count(): os.mkdir(f'/tmp/{n}')";
      expect(String((await run(["python3", "-c", directories])).stderr)).toContain("No space left on device");
      await sh("rm -r /tmp/[0-9]*");
      await agent.write("more", Buffer.alloc(MIB));
      expect(await said("wc -c < more; ls -l more | cut -c1-10")).toBe(`${MIB}\n-rw-r--r--`);
    });

    it("[SB-micro] frozen and woken, it keeps its files and nothing that ran", async () => {
      await agent.write("kept", Buffer.from("yes"));
      const running = sh("sleep 1000");
      await agent.freeze();
      expect(await running).toMatchObject({ signal: "SIGKILL" });
      agent = await AgentClient.connect(stream, { readyMs: BOOT_MS });
      await expect(sh("true")).rejects.toMatchObject({ code: "InvalidParams" });
      await agent.prepare({ hostname: "other" });
      expect(await said("cat kept; cat /proc/sys/kernel/hostname; cat /etc/hosts")).toBe(
        "yesother\n127.0.0.1 localhost other",
      );
      expect(await agent.stats()).toMatchObject({ processes: 0, diskLimitBytes: DISK_BYTES });
    });
  },
);
