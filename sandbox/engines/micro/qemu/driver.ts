import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { orAborted } from "#platform/waiting.ts";
import { AppError } from "#schemas";
import { notAvailable } from "../../../availability.ts";
import { findProgram } from "../../../host.ts";
import type { Availability } from "../../../types.ts";
import { type DriverVm, type MachineSpec, type MicroDriver, startCancelled } from "../driver.ts";
import { findImage, type MicroImage, whyNoImage } from "../image.ts";
import { restoreSnapshot, restoreTemplate } from "./boot.ts";
import { OVERHEAD_BYTES } from "./jail.ts";
import { isWhole, type Template, type TemplateContext, Templates } from "./template.ts";
import { QemuVm } from "./vm.ts";

const PROGRAM = "qemu-system-x86_64";
const HINT = "Run `npm run micro`, which installs QEMU and builds the images.";
const VERSION_MS = 10_000;

export type QemuDriverInput = Omit<TemplateContext, "image" | "qemu"> & {
  /** Directory of the images; without it the one `npm run micro` fills. */
  imageDir?: string | undefined;
  /** The size whose template is built by `probe`. */
  size: Pick<MachineSpec, "memoryBytes" | "cpus">;
};

interface Opened {
  image: MicroImage;
  context: TemplateContext;
  templates: Templates;
}

/**
 * Machines emulated by QEMU (TCG): works without hardware virtualization, and in a jail of its own, as TCG itself is
 * not meant to hold what is hostile. KVM is not used: a jail has no devices.
 */
export class QemuDriver implements MicroDriver {
  readonly name = "qemu";
  readonly overheadBytes = OVERHEAD_BYTES;
  readonly #input: QemuDriverInput;
  /** Templates from which a machine has been restored. */
  readonly #proven = new WeakSet<Template>();
  #opened: Opened | undefined;
  #fingerprint: string | undefined;
  #closed = false;

  constructor(input: QemuDriverInput) {
    this.#input = input;
  }

  /** Restores a machine from the template, which is built for it when there is none. */
  async probe(): Promise<Availability> {
    try {
      const { image, ...size } = { image: "node" as const, ...this.#input.size };
      const vm = await this.start({ image, ...size, diskBytes: size.memoryBytes });
      const answers = await vm.ping();
      await vm.stop();
      if (answers)
        return { available: true, tier: null, reasons: ["Machines are emulated: programs run slowly."] };
      return {
        available: false,
        tier: null,
        reasons: ["A trial virtual machine did not answer."],
        hint: HINT,
      };
    } catch (error) {
      return notAvailable(error, HINT);
    }
  }

  async start(spec: MachineSpec, signal?: AbortSignal): Promise<DriverVm> {
    const { context, templates } = this.#open();
    const template = await orAborted(templates.get(spec), signal, startCancelled);
    try {
      return await this.#fromTemplate(context, spec, template, signal);
    } catch (error) {
      // One that has worked and is whole is not to blame.
      const sound = this.#proven.has(template) && (await isWhole(template, spec));
      if (signal?.aborted || sound) throw error;
      context.log.error({ err: error }, "a template of virtual machines is broken and is built anew");
      await templates.discard(spec, template);
      return this.#fromTemplate(
        context,
        spec,
        await orAborted(templates.get(spec), signal, startCancelled),
        signal,
      );
    }
  }

  async #fromTemplate(
    context: TemplateContext,
    spec: MachineSpec,
    template: Template,
    signal?: AbortSignal,
  ): Promise<DriverVm> {
    const booted = await restoreTemplate(context, spec, template, signal);
    const vm = await QemuVm.prepare(booted, spec, context.log);
    this.#proven.add(template);
    return vm;
  }

  async restore(spec: MachineSpec, dir: string, signal?: AbortSignal): Promise<DriverVm> {
    const { context } = this.#open();
    return QemuVm.prepare(await restoreSnapshot(context, spec, dir, signal), spec, context.log);
  }

  async fingerprint(): Promise<string> {
    const { image, context } = this.#open();
    this.#fingerprint ??= (
      await promisify(execFile)(context.qemu, ["--version"], { timeout: VERSION_MS, env: {} })
    ).stdout.split("\n", 1)[0];
    return `${this.#fingerprint} ${image.version}`;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#opened?.templates.close();
  }

  #open(): Opened {
    if (this.#closed) throw new AppError("Unavailable", "The micro engine is shutting down.");
    const { imageDir, size: _, ...parts } = this.#input;
    const image = findImage(imageDir);
    if (image === undefined) throw unavailable(whyNoImage(imageDir) ?? "There are no images.");
    // Images that were built anew have templates of their own; machines of the old ones go on.
    if (this.#opened?.image.version === image.version) return this.#opened;
    const qemu = findProgram(PROGRAM);
    if (qemu === undefined) throw unavailable(`${PROGRAM} is not installed.`);
    this.#opened?.templates
      .close()
      .catch((err: unknown) => parts.log.warn({ err }, "old templates could not be removed"));
    const context = { ...parts, image, qemu };
    this.#opened = { image, context, templates: new Templates(context) };
    return this.#opened;
  }
}

const unavailable = (message: string) => new AppError("EngineUnavailable", message, { hint: HINT });
