import { readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { MicroEngine } from "#sandbox/engines/micro/engine.ts";
import { AgentClient } from "#sandbox/engines/micro/guest/agent-client.ts";
import { findImage, KERNEL_APPEND, whyNoImage } from "#sandbox/engines/micro/image.ts";
import { restoreTemplate } from "#sandbox/engines/micro/qemu/boot.ts";
import { QemuJail } from "#sandbox/engines/micro/qemu/jail.ts";
import { type TemplateContext, Templates } from "#sandbox/engines/micro/qemu/template.ts";
import type { Vm } from "#sandbox/engines/micro/vm.ts";
import { findProgram } from "#sandbox/host.ts";
import { allProcesses, treeOf } from "#sandbox/process-tree.ts";
import { openSandboxes, type Sandboxes } from "#sandbox/sandboxes.ts";
import { makeTemporary, silent } from "#sandbox/testing/harness.ts";
import { median, percentile, printTable } from "../support.ts";

const MIB = 1024 * 1024;
const SIZE = { memoryBytes: 256 * MIB, cpus: 1 };
const BOOT_MS = 300_000;
const BOOTS = 3;
const RESTORES = 15;
const TAKES = 5;
const EXECUTIONS = 5;
const AT_ONCE = 10;

async function timed<T>(act: () => Promise<T>): Promise<[number, T]> {
  const started = performance.now();
  const result = await act();
  return [performance.now() - started, result];
}

/** MiB of one emulator: all of its share, and what is its own. */
function memoryOf(pid: number): { pss: number; own: number } {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  const field = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(text)?.[1]) / 1024;
  return { pss: field("Pss"), own: field("Private_Dirty") };
}

const emulators = (sandboxes: Sandboxes) =>
  treeOf(sandboxes.launcherPid ?? 0, allProcesses()).filter(({ command }) =>
    command.startsWith("qemu-system"),
  );

const row = (name: string, ms: readonly number[]) => ({
  name,
  "p50 ms": median(ms),
  "min ms": Math.min(...ms),
  "p95 ms": percentile(ms, 0.95),
  runs: ms.length,
});

/** The driver's own steps, without the engine around them. */
async function benchDriver(sandboxes: Sandboxes, context: TemplateContext) {
  const boots: number[] = [];
  for (let run = 0; run < BOOTS; run += 1) {
    const machine = { ...SIZE, append: KERNEL_APPEND, incoming: false };
    const [ms, jail] = await timed(async () => {
      const booted = await QemuJail.start({ ...context, machine, prelude: "boot" });
      const agent = AgentClient.connect(booted.agent, { readyMs: BOOT_MS });
      booted.agent.resume();
      await agent;
      return booted;
    });
    boots.push(ms);
    await jail.stop();
  }
  const templates = new Templates(context);
  const [built, template] = await timed(() => templates.get(SIZE));
  const restores: number[] = [];
  const jails: QemuJail[] = [];
  for (let run = 0; run < RESTORES; run += 1) {
    const [ms, { jail }] = await timed(() => restoreTemplate(context, SIZE, template));
    restores.push(ms);
    await jail.stop();
  }
  const [parallel] = await timed(async () => {
    const machines = Array.from({ length: AT_ONCE }, () => restoreTemplate(context, SIZE, template));
    for (const { jail } of await Promise.all(machines)) jails.push(jail);
  });
  const memory = emulators(sandboxes).map(({ pid }) => memoryOf(pid));
  const charged = await Promise.all(
    jails.map(async ({ process }) => (await process.stats()).memoryBytes / MIB),
  );
  await Promise.all(jails.map((jail) => jail.stop()));
  await templates.close();
  console.log(`template: ${(template.bytes / MIB).toFixed(0)} MiB of ${SIZE.memoryBytes / MIB}`);
  console.log(
    `memory of each of ${memory.length} restored machines: PSS ${median(memory.map(({ pss }) => pss)).toFixed(0)} MiB, ` +
      `private dirty ${median(memory.map(({ own }) => own)).toFixed(0)} MiB; with its whole copy of the template ` +
      `${median(charged).toFixed(0)} MiB`,
  );
  return [
    row("cold boot to agent", boots),
    row("template built", [built]),
    row("restore to agent (jailed)", restores),
    row(`${AT_ONCE} restores at once, all`, [parallel]),
  ];
}

async function benchEngine(sandboxes: Sandboxes, dir: string) {
  const settings = { warm: { node: 1, python: 0 } };
  const engine = await MicroEngine.open({ host: sandboxes, dir, settings, log: silent, drivers: ["qemu"] });
  try {
    const takes: number[] = [];
    const firsts: number[] = [];
    let vm: Vm | undefined;
    for (let run = 0; run < TAKES; run += 1) {
      await engine.warmed();
      await vm?.close();
      const [ms, next] = await timed(() => engine.start({ image: "node" }));
      takes.push(ms);
      // Refilling takes the processors; what runs is measured when that is over.
      await engine.warmed();
      firsts.push((await timed(() => next.execute({ argv: ["true"] })))[0]);
      vm = next;
    }
    const rows = [row("start, from the warm pool", takes), row("first `true`", firsts)];
    const programs = {
      true: { argv: ["true"] },
      node: { code: "1" },
      python: { argv: ["python3", "-c", "1"] },
    };
    for (const [name, request] of Object.entries(programs)) {
      const times: number[] = [];
      for (let run = 0; run < EXECUTIONS; run += 1)
        times.push((await timed(async () => vm?.execute(request)))[0]);
      rows.push(row(`execute ${name}`, times));
    }
    return rows;
  } finally {
    await engine.close();
  }
}

/** Virtual machines: how long they take, and what they take of memory. The machine's load is part of the figures. */
export async function benchMicro(): Promise<void> {
  const image = findImage();
  const qemu = findProgram("qemu-system-x86_64");
  if (image === undefined || qemu === undefined) {
    console.log(`nothing to measure: ${whyNoImage() ?? "qemu-system-x86_64 is not installed."}`);
    return;
  }
  const dataDir = await makeTemporary();
  const sandboxes = await openSandboxes({ dataDir, log: silent });
  try {
    const context = { host: sandboxes, image, qemu, dir: join(dataDir, "templates"), log: silent };
    const rows = await benchDriver(sandboxes, context);
    rows.push(...(await benchEngine(sandboxes, join(dataDir, "micro"))));
    printTable(rows);
  } finally {
    await sandboxes.close();
    await rm(dataDir, { recursive: true, force: true });
  }
}
