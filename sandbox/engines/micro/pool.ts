import { readMemory } from "#platform/host/host-load.ts";
import type { SandboxLog } from "../../types.ts";
import type { DriverVm, MicroImageName } from "./driver.ts";

const CHECK_MS = 5000;
/** After a machine that could not be made, before the next is tried. */
const RETRY_MS = 30_000;

export interface WarmPoolInput {
  wanted: Readonly<Record<MicroImageName, number>>;
  /** Below this much free memory of the host the pool shrinks. Bytes. */
  reserveBytes: number;
  /** Make one, within all limits; undefined when there is no room. */
  make: (image: MicroImageName, signal: AbortSignal) => Promise<DriverVm | undefined>;
  /** What the host could still give to programs, in bytes; without it, what the kernel says. */
  freeBytes?: () => number;
  log: SandboxLog;
}

/**
 * Machines that are ready: restored, with their own entropy, and never used. Each is given away once and never comes
 * back, so there is no state to share. Refilled in the background, one at a time; emptied when memory gets scarce.
 */
export class WarmPool {
  readonly #input: WarmPoolInput;
  readonly #ready = new Map<MicroImageName, DriverVm[]>([
    ["node", []],
    ["python", []],
  ]);
  readonly #stop = new AbortController();
  readonly #timer: NodeJS.Timeout;
  #filling: Promise<void> | undefined;
  #pausedUntil = 0;

  constructor(input: WarmPoolInput) {
    this.#input = input;
    this.#timer = setInterval(() => this.check(), CHECK_MS);
    this.#timer.unref();
    this.check();
  }

  get size(): number {
    return [...this.#ready.values()].reduce((sum, machines) => sum + machines.length, 0);
  }

  /** One that works, if there is one; the place it leaves is filled in the background. */
  async take(image: MicroImageName): Promise<DriverVm | undefined> {
    const machines = this.#ready.get(image) ?? [];
    for (let vm = machines.shift(); vm !== undefined; vm = machines.shift()) {
      if (await vm.ping()) {
        this.check();
        return vm;
      }
    }
    this.check();
    return undefined;
  }

  /** End the one that waits longest, to make room. Answers whether there was one. */
  async giveUp(): Promise<boolean> {
    const machines = [...this.#ready.values()].sort((a, b) => b.length - a.length)[0];
    const vm = machines?.shift();
    await vm?.stop();
    return vm !== undefined;
  }

  /** Begin to fill, or to shrink, if there is need. */
  check(): void {
    if (this.#stop.signal.aborted || this.#filling !== undefined) return;
    this.#filling = this.#adjust()
      .catch((error: unknown) => {
        this.#pausedUntil = Date.now() + RETRY_MS;
        if (!this.#stop.signal.aborted) this.#input.log.warn({ err: error }, "no machine can be kept ready");
      })
      .finally(() => {
        this.#filling = undefined;
      });
  }

  /** Resolves when nothing is being made any more: filled, or without room. */
  async settled(): Promise<void> {
    while (this.#filling !== undefined) await this.#filling;
  }

  async close(): Promise<void> {
    this.#stop.abort();
    clearInterval(this.#timer);
    await this.settled();
    while (await this.giveUp()) {
      // Until none is left.
    }
  }

  async #adjust(): Promise<void> {
    const { freeBytes = () => readMemory().availableBytes, reserveBytes, make } = this.#input;
    while (!this.#stop.signal.aborted) {
      if (freeBytes() < reserveBytes) {
        if (!(await this.giveUp())) return;
        continue;
      }
      const image = this.#missing();
      if (image === undefined || Date.now() < this.#pausedUntil) return;
      const vm = await make(image, this.#stop.signal);
      if (vm === undefined) return;
      const machines = this.#ready.get(image);
      if (this.#stop.signal.aborted || machines === undefined) return vm.stop();
      machines.push(vm);
      void vm.exited.then(() => {
        const at = machines.indexOf(vm);
        if (at >= 0) machines.splice(at, 1);
      });
    }
  }

  #missing(): MicroImageName | undefined {
    for (const [image, machines] of this.#ready) {
      if (machines.length < this.#input.wanted[image]) return image;
    }
    return undefined;
  }
}
