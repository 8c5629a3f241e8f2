import { orAborted } from "#platform/waiting.ts";
import { AppError } from "#schemas";
import { startCancelled } from "../driver.ts";
import { AgentClient } from "../guest/agent-client.ts";
import { KERNEL_APPEND } from "../image.ts";
import { QemuJail } from "./jail.ts";
import { INSIDE, type Machine } from "./machine.ts";
import { loadState, standStill } from "./migration.ts";
import type { Template, TemplateContext, TemplateSize } from "./template.ts";

/** Emulated, booting takes 4 s on a machine at rest, and minutes on one with a hundred busy programs. */
const BOOT_MS = 300_000;
const RESTORE_MS = 60_000;

/** A machine whose agent answers, and which still has to be given entropy and time. */
export interface Booted {
  jail: QemuJail;
  agent: AgentClient;
}

function machineOf(size: TemplateSize, more: Partial<Machine> = {}): Machine {
  return { ...size, append: KERNEL_APPEND, incoming: false, ...more };
}

async function withAgent(jail: QemuJail, readyMs: number, signal?: AbortSignal): Promise<Booted> {
  try {
    const ended = jail.ended.then((reason) => {
      throw new AppError(
        "Unavailable",
        `The virtual machine ended while it started${reason ? `: ${reason}` : "."}`,
      );
    });
    ended.catch(() => undefined);
    const connecting = AgentClient.connect(jail.agent, { readyMs });
    // It arrived paused, so that nothing was lost before somebody listened.
    jail.agent.resume();
    const agent = await orAborted(Promise.race([connecting, ended]), signal, startCancelled);
    return { jail, agent };
  } catch (error) {
    await jail.stop();
    throw error;
  }
}

/** Boot a machine whose memory is a file in its slot (`ram/ram`), and hold it still, waiting for its first order. */
export async function bootForTemplate(context: TemplateContext, size: TemplateSize): Promise<QemuJail> {
  const { host, image, qemu } = context;
  const machine = machineOf(size, { ramFile: `${INSIDE.ram}/ram` });
  const started = await QemuJail.start({ host, image, qemu, machine, prelude: "boot", ramDirectory: "ram" });
  const { jail, agent } = await withAgent(started, BOOT_MS);
  try {
    await agent.freeze();
    await standStill(jail);
    return jail;
  } catch (error) {
    await jail.stop();
    throw error;
  }
}

/** A machine with a private copy of a template's memory. */
export async function restoreTemplate(
  context: TemplateContext,
  size: TemplateSize,
  template: Template,
  signal?: AbortSignal,
): Promise<Booted> {
  const { host, image, qemu } = context;
  const machine = machineOf(size, { ramFile: INSIDE.copy, incoming: true });
  const jail = await QemuJail.start({
    host,
    image,
    qemu,
    machine,
    prelude: "copy",
    saved: template.dir,
    signal,
  });
  return loaded(jail, true, signal);
}

/** A machine from what `saveState` wrote with its memory. */
export async function restoreSnapshot(
  context: TemplateContext,
  size: TemplateSize,
  dir: string,
  signal?: AbortSignal,
): Promise<Booted> {
  const { host, image, qemu } = context;
  const machine = machineOf(size, { incoming: true });
  const jail = await QemuJail.start({ host, image, qemu, machine, prelude: "state", saved: dir, signal });
  return loaded(jail, false, signal);
}

async function loaded(jail: QemuJail, withoutMemory: boolean, signal?: AbortSignal): Promise<Booted> {
  try {
    await loadState(jail, { withoutMemory });
  } catch (error) {
    await jail.stop();
    throw error;
  }
  return withAgent(jail, RESTORE_MS, signal);
}
