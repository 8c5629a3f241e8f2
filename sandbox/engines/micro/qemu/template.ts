import { chmod, mkdir, rm, stat, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import { AppError } from "#schemas";
import { newInstanceName } from "../../../instance.ts";
import type { SandboxHost } from "../../../sandboxes.ts";
import type { SandboxLog } from "../../../types.ts";
import type { MachineSpec } from "../driver.ts";
import type { MicroImage } from "../image.ts";
import { RAM_PREFIX, SHARED_MEMORY } from "../reconcile.ts";
import { bootForTemplate } from "./boot.ts";
import { copyMemory, saveState } from "./migration.ts";

const MIB = 1024 * 1024;
/** Devices and registers, without memory: about 0.4 MiB. */
const MAX_STATE_BYTES = 32 * MIB;
/** Room that must be left in shared memory besides the template's own. */
const SHARED_RESERVE_BYTES = 256 * MIB;
/** Sizes of machines that are kept ready at once. */
const MAX_TEMPLATES = 4;

export interface TemplateContext {
  host: SandboxHost;
  image: MicroImage;
  /** Path of qemu-system-x86_64. */
  qemu: string;
  /** The engine's data directory. */
  dir: string;
  log: SandboxLog;
}

export type TemplateSize = Pick<MachineSpec, "memoryBytes" | "cpus">;

/** A booted machine that waits for its first order, as files: `state` and `ram`. */
export interface Template {
  /** Directory with the two, readable by every slot's user, writable by none. */
  readonly dir: string;
  /** What the two take. */
  readonly bytes: number;
}

/** Where templates' files lie: in memory where there is room, else in the data directory. */
async function makeHome(dir: string, bytes: number): Promise<string> {
  const name = `${RAM_PREFIX}${newInstanceName()}`;
  const shared = await statfs(SHARED_MEMORY).catch(() => undefined);
  const room = shared === undefined ? 0 : shared.bavail * shared.bsize;
  const home = join(room > bytes + SHARED_RESERVE_BYTES ? SHARED_MEMORY : dir, name);
  await mkdir(home, { recursive: true, mode: 0o711 });
  await chmod(home, 0o711);
  return home;
}

async function build(context: TemplateContext, size: TemplateSize): Promise<Template> {
  const home = await makeHome(context.dir, size.memoryBytes);
  try {
    const jail = await bootForTemplate(context, size);
    try {
      const stateBytes = await saveState(jail, home, { maxBytes: MAX_STATE_BYTES, withoutMemory: true });
      const ram = join(jail.slot.dir, "ram", "ram");
      const ramBytes = await copyMemory(ram, join(home, "ram"), size.memoryBytes);
      // Whoever is restored from it can read it, and nobody but us can open it for writing.
      for (const file of ["state", "ram"]) await chmod(join(home, file), 0o444);
      return { dir: home, bytes: stateBytes + ramBytes };
    } finally {
      await jail.stop();
    }
  } catch (error) {
    await rm(home, { recursive: true, force: true });
    throw error;
  }
}

/**
 * One template per size of machine, built at its first use, kept for this server's life. Every machine gets a copy of
 * its own of the memory (see docs/decisions/0006): what a taken-over QEMU does to it changes nothing for others.
 */
export class Templates {
  readonly #context: TemplateContext;
  readonly #kept = new Map<string, Promise<Template>>();
  #closed = false;

  constructor(context: TemplateContext) {
    this.#context = context;
  }

  /** The template of that size, built when there is none. Two who ask at once get the same. */
  get(size: TemplateSize): Promise<Template> {
    if (this.#closed)
      return Promise.reject(new AppError("Unavailable", "The micro engine is shutting down."));
    const key = keyOf(size);
    let template = this.#kept.get(key);
    if (template === undefined) {
      template = this.#build(size);
      this.#kept.set(key, template);
      template.catch(() => this.#kept.delete(key));
    } else {
      // Last used stands last.
      this.#kept.delete(key);
      this.#kept.set(key, template);
    }
    return template;
  }

  /** Forget one that does not work; the next who asks builds it anew. */
  async discard(size: TemplateSize, broken: Template): Promise<void> {
    const key = keyOf(size);
    const kept = await this.#kept.get(key)?.catch(() => undefined);
    if (kept === broken) this.#kept.delete(key);
    await rm(broken.dir, { recursive: true, force: true });
  }

  async close(): Promise<void> {
    this.#closed = true;
    const all = await Promise.allSettled(this.#kept.values());
    this.#kept.clear();
    for (const result of all) {
      if (result.status === "fulfilled") await rm(result.value.dir, { recursive: true, force: true });
    }
  }

  async #build(size: TemplateSize): Promise<Template> {
    const started = performance.now();
    const template = await build(this.#context, size);
    const ms = Math.round(performance.now() - started);
    const where = dirname(template.dir);
    this.#context.log.info(
      { memoryBytes: size.memoryBytes, cpus: size.cpus, ms, bytes: template.bytes, where },
      "template of virtual machines built",
    );
    await this.#dropOldest();
    return template;
  }

  async #dropOldest(): Promise<void> {
    while (this.#kept.size > MAX_TEMPLATES) {
      const [key, oldest] = this.#kept.entries().next().value ?? [];
      if (key === undefined || oldest === undefined) return;
      this.#kept.delete(key);
      // Machines that are being restored from it have it mounted, or fail and are tried again.
      const template = await oldest.catch(() => undefined);
      if (template !== undefined) await rm(template.dir, { recursive: true, force: true });
    }
  }
}

const keyOf = ({ memoryBytes, cpus }: TemplateSize) => `${memoryBytes}/${cpus}`;

/** Whether both files are there as they were written. */
export async function isWhole(template: Template, size: TemplateSize): Promise<boolean> {
  const [state, ram] = await Promise.all(
    ["state", "ram"].map((name) => stat(join(template.dir, name)).catch(() => undefined)),
  );
  return state !== undefined && state.size > 0 && ram?.size === size.memoryBytes;
}
