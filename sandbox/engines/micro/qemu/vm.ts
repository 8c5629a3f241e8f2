import { setImmediate } from "node:timers/promises";
import { AppError } from "#schemas";
import type { SandboxLog, SandboxStats } from "../../../types.ts";
import type { DriverVm, GuestCommand, GuestResult, MachineSpec, VmExit } from "../driver.ts";
import { AgentClient } from "../guest/agent-client.ts";
import type { Booted } from "./boot.ts";
import type { QemuJail } from "./jail.ts";
import { goOn, saveState, standStill } from "./migration.ts";

const PING_MS = 2000;
const RESUME_MS = 30_000;

/** A machine that runs in a jail, and its agent. */
export class QemuVm implements DriverVm {
  readonly exited: Promise<VmExit>;
  readonly #jail: QemuJail;
  readonly #spec: MachineSpec;
  readonly #log: SandboxLog;
  #agent: AgentClient;
  #running = 0;
  #saving = false;
  #stopped = false;
  #failure: AppError | undefined;

  private constructor({ jail, agent }: Booted, spec: MachineSpec, log: SandboxLog) {
    this.#jail = jail;
    this.#agent = agent;
    this.#spec = spec;
    this.#log = log;
    this.exited = jail.ended.then((reason): VmExit => {
      if (this.#stopped) return { reason: "stopped" };
      return { reason: "failed", error: this.#failure ?? ended(reason) };
    });
    this.#watch(agent);
  }

  /** Give a machine what makes it unlike its siblings, before anything runs in it. */
  static async prepare(booted: Booted, spec: MachineSpec, log: SandboxLog): Promise<QemuVm> {
    const vm = new QemuVm(booted, spec, log);
    try {
      await vm.#prepare();
      return vm;
    } catch (error) {
      await vm.stop();
      throw error;
    }
  }

  async execute(command: GuestCommand): Promise<GuestResult> {
    if (this.#saving) throw busy("A snapshot of this virtual machine is being taken.");
    this.#running += 1;
    try {
      return await this.#execute(command);
    } catch (error) {
      throw await this.#explain(error);
    } finally {
      this.#running -= 1;
    }
  }

  async ping(): Promise<boolean> {
    try {
      await this.#agent.ping(PING_MS);
      return true;
    } catch (error) {
      this.#fail(error);
      return false;
    }
  }

  async snapshot(dir: string, maxBytes: number): Promise<number> {
    if (this.#running > 0 || this.#saving) throw busy("Something runs in this virtual machine.");
    this.#saving = true;
    try {
      await this.#agent.freeze();
      await standStill(this.#jail);
      try {
        return await saveState(this.#jail, dir, { maxBytes, withoutMemory: false });
      } finally {
        await this.#resume();
      }
    } catch (error) {
      throw await this.#explain(error);
    } finally {
      this.#saving = false;
    }
  }

  stats(): Promise<SandboxStats> {
    return this.#jail.process.stats();
  }

  async stop(): Promise<void> {
    if (this.#failure === undefined) this.#stopped = true;
    await this.#jail.stop();
  }

  async #execute({ files, ...command }: GuestCommand): Promise<GuestResult> {
    for (const { path, data } of files) await this.#agent.write(path, data);
    const { code, signal, ...output } = await this.#agent.exec(command);
    return { ...output, exitCode: code, ...(signal === null ? {} : { signal }) };
  }

  async #prepare(): Promise<void> {
    await this.#agent.prepare({ hostname: "sandbox", diskBytes: this.#spec.diskBytes });
  }

  /** After a snapshot: the same machine goes on, and it must not go on with the randomness that was saved. */
  async #resume(): Promise<void> {
    try {
      await goOn(this.#jail);
      this.#agent = await AgentClient.connect(this.#jail.agent, { readyMs: RESUME_MS });
      this.#watch(this.#agent);
      await this.#prepare();
    } catch (error) {
      this.#fail(error);
      throw error;
    }
  }

  #watch(agent: AgentClient): void {
    void agent.closed.then((error) => {
      if (agent === this.#agent && !this.#saving) this.#fail(error);
    });
  }

  /** What it says cannot be trusted any more, or nothing comes: the machine ends, and only it. */
  #fail(error: unknown): void {
    if (this.#stopped) return;
    this.#failure ??= error instanceof AppError ? error : ended(undefined);
    this.#jail
      .stop()
      .catch((err: unknown) => this.#log.error({ err }, "a virtual machine could not be ended"));
  }

  /** When the connection to the agent is lost, the machine ends, and its end is the reason that is told. */
  async #explain(error: unknown): Promise<unknown> {
    const lost = await Promise.race([this.#agent.closed, setImmediate(undefined)]);
    if (lost === undefined) return error;
    this.#fail(lost);
    const exit = await this.exited;
    return exit.error ?? ended(undefined);
  }
}

const busy = (message: string) =>
  new AppError("Conflict", message, { hint: "Wait until it is done, then try again." });

const ended = (reason: string | undefined) =>
  new AppError("Unavailable", `The virtual machine has ended${reason === undefined ? "." : `: ${reason}`}`, {
    hint: "Start another one.",
  });
