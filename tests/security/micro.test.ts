import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createReadStream, existsSync } from "node:fs";
import { open, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { MicroEngine } from "#sandbox/engines/micro/engine.ts";
import { findImage, type MicroImage, whyNoImage } from "#sandbox/engines/micro/image.ts";
import { bootForTemplate } from "#sandbox/engines/micro/qemu/boot.ts";
import { QemuJail } from "#sandbox/engines/micro/qemu/jail.ts";
import { RAM_PREFIX, reconcileMicro, SHARED_MEMORY } from "#sandbox/engines/micro/reconcile.ts";
import type { Vm } from "#sandbox/engines/micro/vm.ts";
import { findProgram } from "#sandbox/host.ts";
import { allProcesses, isRunning, type ProcessInfo, treeOf } from "#sandbox/process-tree.ts";
import {
  makeTemporary,
  openForTest,
  run,
  silent,
  type TestSandboxes,
  until,
} from "#sandbox/testing/harness.ts";

/** Group 22: virtual machines, their clones, and what a taken-over machine or emulator can do to others. */

const MIB = 1024 * 1024;
const SLOW_MS = 400_000;
const isRoot = process.getuid?.() === 0;
const qemu = findProgram("qemu-system-x86_64");
const image = findImage();
const why = whyNoImage() ?? (qemu === undefined ? "qemu-system-x86_64 is not installed" : "");
const size = { memoryBytes: 256 * MIB, cpus: 1 };

const text = async (vm: Vm, script: string, processes = 64) =>
  String((await vm.execute({ argv: ["sh", "-c", script], processes })).stdout).trim();

const hash = async (path: string) => {
  const digest = createHash("sha256");
  await pipeline(createReadStream(path), digest);
  return digest.digest("hex");
};

describe.skipIf(why !== "")(`virtual machines${why === "" ? "" : ` (skipped: ${why})`}`, () => {
  let opened: TestSandboxes;
  let engine: MicroEngine;
  let first: Vm;
  let second: Vm;
  const context = (other: Partial<MicroImage> = {}) => ({
    host: opened.sandboxes,
    image: { ...(image as MicroImage), ...other },
    qemu: qemu as string,
    dir: opened.dataDir,
    log: silent,
  });
  const emulators = (): ProcessInfo[] =>
    treeOf(opened.sandboxes.launcherPid ?? 0, allProcesses()).filter(({ command }) =>
      command.startsWith("qemu-system"),
    );
  const templateDir = async (): Promise<string> => {
    const names = await readdir(SHARED_MEMORY);
    const own = names.find((name) => name.startsWith(RAM_PREFIX) && name.includes(`-${process.pid}-`));
    if (own !== undefined) return join(SHARED_MEMORY, own);
    const inData = (await readdir(join(opened.dataDir, "micro"))).find((name) => name.startsWith(RAM_PREFIX));
    return join(opened.dataDir, "micro", inData ?? "none");
  };

  beforeAll(async () => {
    opened = await openForTest();
    engine = await MicroEngine.open({
      host: opened.sandboxes,
      dir: join(opened.dataDir, "micro"),
      log: silent,
      drivers: ["qemu"],
    });
    [first, second] = await Promise.all([engine.start({ image: "node" }), engine.start({ image: "python" })]);
  }, SLOW_MS);

  afterAll(async () => {
    await engine?.close();
    await opened?.[Symbol.asyncDispose]();
  }, SLOW_MS);

  it("[SB-micro] clones share no randomness, and their clocks are right", { timeout: SLOW_MS }, async () => {
    const script = [
      "head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n'; echo",
      "node -p 'crypto.randomUUID() + \"\\n\" + Math.random()'",
      "python3 -c 'import random; print(random.random()); print(hash(\"x\"))'",
      "cat /proc/sys/kernel/random/uuid; date +%s",
    ].join("; ");
    const snapshot = await first.snapshot();
    const third = await engine.restore(snapshot);
    const machines = [first, second, third];
    const before = Math.floor(Date.now() / 1000);
    const answers = (await Promise.all(machines.map((vm) => text(vm, script)))).map((each) =>
      each.split("\n"),
    );
    const after = Math.ceil(Date.now() / 1000);
    for (const answer of answers) {
      expect(answer).toHaveLength(7);
      // Neither slow nor fast by more than its clock may drift while a busy host emulates it.
      expect(Number(answer[6])).toBeGreaterThanOrEqual(before - 2);
      expect(Number(answer[6])).toBeLessThanOrEqual(after + 2);
    }
    for (let line = 0; line < 6; line += 1) {
      expect(new Set(answers.map((answer) => answer[line])).size).toBe(machines.length);
    }
    await third.close();
    await engine.deleteSnapshot(snapshot);
  });

  it("[SB-micro] what an emulator does to its memory changes nothing for others", {
    timeout: SLOW_MS,
  }, async () => {
    const template = await templateDir();
    const files = ["ram", "state"].map((name) => join(template, name));
    const before = await Promise.all(files.map(hash));
    // As a taken-over emulator would: the same mount, the same user, the same filter.
    const tried = await run(
      opened.sandboxes,
      [
        "/bin/sh",
        "-c",
        "for f in ram state; do (: > /vm/saved/$f); printf x | dd of=/vm/saved/$f conv=notrunc; rm -f /vm/saved/$f; mv /vm/saved/$f /tmp/; chmod 666 /vm/saved/$f; [ -s /vm/saved/$f ] && echo $f; done",
      ],
      { mounts: [{ source: template, target: "/vm/saved", mode: "ro" }] },
    );
    expect(tried.stdout.trim().split("\n")).toEqual(["ram", "state"]);
    expect(tried.stderr).toMatch(/Permission denied|Read-only/);
    if (isRoot) {
      // And the memory of one that runs: its copy is its own.
      const victim = await engine.start({ image: "node" });
      const pid = emulators().at(-1)?.pid ?? 0;
      const memory = await open(`/proc/${pid}/root/dev/shm/ram`, "r+");
      for (let at = 0; at < size.memoryBytes; at += MIB)
        await memory.write(Buffer.alloc(MIB, 0xff), 0, MIB, at);
      await memory.close();
      await victim.close();
    }
    expect(await Promise.all(files.map(hash))).toEqual(before);
    const next = await engine.start({ image: "node" });
    expect(await text(next, "echo fine")).toBe("fine");
    await next.close();
    expect(await text(first, "echo fine")).toBe("fine");
  });

  it("[SB-micro] a bomb of forks, of memory or of files hurts its own machine only", {
    timeout: SLOW_MS,
  }, async () => {
    const bombs = [
      "f() { f | f & }; f; sleep 3",
      "python3 -c 'a = []\nwhile True: a.append(bytearray(16 << 20))'",
      "i=0; while echo $i > /work/$i; do i=$((i+1)); done; rm -rf /work/[0-9]*",
      "head -c 999999999 /dev/zero > /tmp/full; rm /tmp/full",
    ];
    for (const bomb of bombs) {
      const outcome = first
        .execute({ argv: ["sh", "-c", bomb], timeoutMs: 30_000 })
        .catch((error: { code: string }) => error.code);
      expect(await text(second, "echo fine")).toBe("fine");
      expect(await outcome).not.toBe("Unavailable");
      expect(await text(first, "echo fine")).toBe("fine");
    }
  });

  it("[SB-micro] inside, there is no network and nothing of the host", { timeout: SLOW_MS }, async () => {
    expect(await text(first, "ls /sys/class/net")).toBe("lo");
    // Class 02 is a network controller; what is there are the bridge, the disk and the port of the agent.
    expect(await text(first, "cat /sys/bus/pci/devices/*/class | grep -c ^0x02 || true")).toBe("0");
    expect(
      await text(first, "id -u; cat /dev/vport*; cat /dev/vda | head -c 1; echo x > /proc/sysrq-trigger"),
    ).toBe("1000");
    expect(await text(first, "find / -xdev -perm /6000 -type f 2>/dev/null")).toBe("");
    for (const path of [opened.dataDir, fileURLToPath(import.meta.url), "/vm/kernel"]) {
      expect(await text(first, `[ -e '${path}' ] || echo none`)).toBe("none");
    }
  });

  it("[SB-micro] a guest's kernel that panics ends as an error, and leaves nothing", {
    timeout: SLOW_MS,
  }, async () => {
    const { inUse } = opened.sandboxes.slots;
    const count = emulators().length;
    // Without a root file system its first program ends, which is a panic.
    const broken = bootForTemplate(context({ rootfs: image?.initrd ?? "" }), size);
    await expect(broken).rejects.toMatchObject({ code: "Unavailable" });
    expect(emulators()).toHaveLength(count);
    expect(opened.sandboxes.slots.inUse).toBe(inUse);
  });

  it.each([
    ["floods", "yes"],
    ["ends at once", "true"],
    ["says nothing that makes sense", "echo"],
  ])("[SB-micro] an emulator that %s ends alone", { timeout: SLOW_MS }, async (_how, program) => {
    const { inUse } = opened.sandboxes.slots;
    const machine = { ...size, append: "", incoming: false };
    const hostile = QemuJail.start({
      ...context(),
      qemu: findProgram(program) ?? program,
      machine,
      prelude: "boot",
    });
    await expect(hostile).rejects.toSatisfy(
      ({ code }: { code: string }) => code === "Unavailable" || code === "EngineUnavailable",
    );
    expect(opened.sandboxes.slots.inUse).toBe(inUse);
  });

  it("[SB-micro] a machine whose emulator is killed ends as an error for who waits", {
    timeout: SLOW_MS,
  }, async () => {
    const before = emulators().map(({ pid }) => pid);
    const vm = await engine.start({ image: "node" });
    const own = emulators().find(({ pid }) => !before.includes(pid));
    const waiting = vm.execute({
      argv: ["sh", "-c", "echo up; sleep 1000"],
      onOutput: () => process.kill(own?.pid ?? 0, "SIGKILL"),
    });
    await expect(waiting).rejects.toMatchObject({ code: "Unavailable" });
    expect(await vm.exited).toMatchObject({ reason: "failed", error: { code: "Unavailable" } });
    await expect(vm.execute({ argv: ["true"] })).rejects.toMatchObject({ code: "Unavailable" });
    expect(engine.list()).not.toContain(vm);
    await vm.close();
  });

  it("[SB-micro] a killed server leaves no machine, and its memory files go", {
    timeout: SLOW_MS,
  }, async () => {
    const dataDir = await makeTemporary();
    const script = fileURLToPath(new URL("../../sandbox/testing/micro-server.ts", import.meta.url));
    const server = spawn(process.execPath, [script, dataDir], { stdio: ["ignore", "pipe", "inherit"] });
    const [line] = (await once(server.stdout, "data")) as [Buffer];
    const { warm, emulators: theirs } = JSON.parse(String(line)) as {
      warm: number;
      emulators: ProcessInfo[];
    };
    expect(warm).toBe(1);
    expect(theirs).toHaveLength(2);
    server.kill("SIGKILL");
    await once(server, "exit");
    await until(() => !theirs.some(isRunning));
    expect(await reconcileMicro(join(dataDir, "micro"), silent)).toBeGreaterThanOrEqual(1);
    const left = (await readdir(SHARED_MEMORY)).filter((name) => name.includes(`-${server.pid}-`));
    expect(left).toEqual([]);
    // What its sandboxes left, the next server of this directory removes.
    const next = await openForTest({ dataDir });
    await next[Symbol.asyncDispose]();
    await rm(dataDir, { recursive: true });
    expect(existsSync(await templateDir())).toBe(true);
  });
});
