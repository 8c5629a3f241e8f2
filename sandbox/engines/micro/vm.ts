import { newId } from "#platform/ids.ts";
import { AppError } from "#schemas";
import { operation } from "../../operations.ts";
import type { Instance, SandboxStats } from "../../types.ts";
import { commandOf, type ExecuteRequest } from "./command.ts";
import type { DriverVm, GuestResult, MachineSpec, MicroImageName, VmExit } from "./driver.ts";

/** A virtual machine that somebody has. */
export interface Vm extends Instance {
  readonly image: MicroImageName;
  readonly memoryBytes: number;
  readonly exited: Promise<VmExit>;
  /** ms since 1970: when something was last asked of it, or now while something runs. */
  readonly usedAt: number;
  /** Run code or a program to its end. Throws AppError InvalidParams, Timeout, Cancelled, Unavailable (it has ended). */
  execute(request: ExecuteRequest): Promise<GuestResult>;
  /**
   * Keep the machine as it is, for later machines to start from; answers the snapshot's id. Its programs end, its files
   * stay, it goes on. Throws AppError Conflict while something runs, QuotaExceeded.
   */
  snapshot(): Promise<string>;
  stats(): Promise<SandboxStats>;
  /** End it. Resolves when nothing of it is left. */
  close(): Promise<void>;
}

export interface MicroVmInput {
  machine: MachineSpec & { idleMs: number };
  driven: DriverVm;
  /** Keeps a snapshot of it. */
  save: (vm: MicroVm) => Promise<string>;
}

export class MicroVm implements Vm {
  readonly id = newId("machine");
  readonly startedAt = Date.now();
  readonly image: MicroImageName;
  readonly memoryBytes: number;
  readonly exited: Promise<VmExit>;
  readonly machine: MachineSpec & { idleMs: number };
  readonly driven: DriverVm;
  readonly #save: (vm: MicroVm) => Promise<string>;
  #usedAt = Date.now();
  #busy = 0;
  #scripts = 0;
  #idle: NodeJS.Timeout | undefined;
  #isIdle = false;

  constructor({ machine, driven, save }: MicroVmInput) {
    this.image = machine.image;
    this.memoryBytes = machine.memoryBytes;
    this.machine = machine;
    this.driven = driven;
    this.#save = save;
    this.exited = driven.exited.then((exit): VmExit => {
      clearTimeout(this.#idle);
      return this.#isIdle && exit.reason === "stopped" ? { reason: "idle" } : exit;
    });
    this.#rest();
  }

  get usedAt(): number {
    return this.#busy > 0 ? Date.now() : this.#usedAt;
  }

  execute(request: ExecuteRequest): Promise<GuestResult> {
    const facts = { image: this.image, code: request.code !== undefined };
    return operation("micro", "execute", facts, async () => {
      this.#scripts += 1;
      const command = commandOf(request, this.image, this.#scripts);
      return this.#use(() => this.driven.execute(command));
    });
  }

  snapshot(): Promise<string> {
    return operation("micro", "snapshot", { image: this.image }, () => this.#use(() => this.#save(this)));
  }

  stats(): Promise<SandboxStats> {
    return this.driven.stats();
  }

  close(): Promise<void> {
    return operation("micro", "stop", { image: this.image }, async () => {
      await this.driven.stop();
      await this.exited;
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** While something is done with it, it is not idle. */
  async #use<T>(act: () => Promise<T>): Promise<T> {
    if (this.#isIdle) throw idled();
    this.#busy += 1;
    clearTimeout(this.#idle);
    try {
      return await act();
    } finally {
      this.#busy -= 1;
      this.#usedAt = Date.now();
      if (this.#busy === 0) this.#rest();
    }
  }

  #rest(): void {
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => {
      this.#isIdle = true;
      // An end that fails is tried again when the engine closes, and told then.
      this.driven.stop().catch(() => undefined);
    }, this.machine.idleMs);
    this.#idle.unref();
  }
}

const idled = () =>
  new AppError("Unavailable", "The virtual machine was ended, because nobody used it for long.", {
    hint: "Start another one, or ask for a longer idleMs.",
  });
