import { newId } from "#platform/ids.ts";
import { AppError } from "#schemas";
import { notAvailable, remembered } from "../../availability.ts";
import { operation } from "../../operations.ts";
import type { SandboxHost } from "../../sandboxes.ts";
import type { Availability, Engine, SandboxLog } from "../../types.ts";
import { type Domain, Domains } from "./domains.ts";
import type { Answer, HostProcess } from "./host-process.ts";
import { WASM_LIMITS } from "./limits.ts";
import { MODULE_LIMITS, PAGE_BYTES } from "./meter/limits.ts";
import { budget, LoadedModule, memoryLimit, outputs } from "./module.ts";
import { errorOf } from "./replies.ts";
import { TRIAL_ANSWER, TRIAL_MODULE } from "./trial.ts";
import type { WasmInstance, WasmSpec } from "./types.ts";

export interface WasmEngineOptions {
  /** Where the hosts of modules are started. */
  host: SandboxHost;
  log: SandboxLog;
  /** How long the process of a domain without modules is kept, ms. */
  idleMs?: number;
  /** Whether to keep a process ready for the next domain. */
  spare?: boolean;
}

/**
 * WebAssembly modules, in a sandboxed process per trust domain and a thread each. What they compute is metered by the
 * code that `meter/` puts into them; time, memory and output are bounded from outside as well.
 */
export class WasmEngine implements Engine<WasmSpec, WasmInstance> {
  readonly name = "wasm";
  readonly probe = remembered(() => this.#trial());
  readonly #domains: Domains;
  readonly #open = new Set<WasmInstance>();
  #loading = 0;
  #closed = false;

  private constructor({ host, log, idleMs = WASM_LIMITS.idleMs, spare = true }: WasmEngineOptions) {
    this.#domains = new Domains({ host, log, idleMs, spare });
  }

  /** Starts nothing yet: the first module does. */
  static async open(options: WasmEngineOptions): Promise<WasmEngine> {
    return new WasmEngine(options);
  }

  /** Processes that hold modules or wait for some. */
  get processes(): number {
    return this.#domains.processes;
  }

  list(): readonly WasmInstance[] {
    return [...this.#open];
  }

  /**
   * Load a module and run what it runs when it is loaded. Throws AppError InvalidModule (`details.proposal` names what
   * is not supported), InvalidParams, PayloadTooLarge, QuotaExceeded, OutOfFuel, WasmTrap, Timeout, Cancelled, Unavailable,
   * EngineUnavailable.
   */
  start(spec: WasmSpec): Promise<WasmInstance> {
    return operation(this.name, "load", { bytes: spec.bytes.length }, () => this.#start(spec));
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#open].map((instance) => instance.close()));
    await this.#domains.close();
  }

  async #start(spec: WasmSpec): Promise<WasmInstance> {
    if (this.#closed) throw new AppError("Unavailable", "The sandbox is shutting down.");
    check(spec);
    const limits = budget(spec, WASM_LIMITS.loadTimeoutMs);
    const memoryLimitBytes = memoryLimit(spec.memoryBytes ?? WASM_LIMITS.defaultMemoryBytes);
    if (this.#open.size + this.#loading >= WASM_LIMITS.instances) {
      throw new AppError("QuotaExceeded", `${WASM_LIMITS.instances} modules are open on this server.`, {
        hint: "Try again when others have been closed.",
      });
    }
    const domain = this.#domains.enter(spec.domain, memoryLimitBytes);
    this.#loading += 1;
    try {
      return await this.#load(spec, domain, memoryLimitBytes, limits);
    } catch (error) {
      this.#domains.leave(domain, memoryLimitBytes);
      throw error;
    } finally {
      this.#loading -= 1;
    }
  }

  async #load(
    spec: WasmSpec,
    domain: Domain,
    memoryLimitBytes: number,
    { fuel, timeoutMs }: { fuel: number; timeoutMs: number },
  ): Promise<WasmInstance> {
    const process = await domain.process;
    if (spec.signal?.aborted) throw new AppError("Cancelled", "The load was cancelled before it began.");
    const id = newId("module");
    const { bytes, args = [], env = {}, files, stdin = new Uint8Array(), signal } = spec;
    if (files !== undefined) process.setFiles(id, files);
    const payload = new Uint8Array(bytes.length + stdin.length);
    payload.set(bytes);
    payload.set(stdin, bytes.length);
    const forget = () => process.setFiles(id, undefined);
    try {
      const answer = await process.ask(
        (order) => ({
          ...{ type: "load", id: order, instance: id, fuel, timeoutMs, args: [...args] },
          env: Object.entries(env).map(([name, value]) => `${name}=${value}`),
          memoryPages: memoryLimitBytes / PAGE_BYTES,
          fileBytes: files === undefined ? 0 : Math.min(files.maxBytes, WASM_LIMITS.fileBytes),
          writable: files?.write !== undefined,
          outputBytes: WASM_LIMITS.outputBytes,
          moduleBytes: bytes.length,
        }),
        payload,
        timeoutMs,
        signal,
      );
      return this.#loaded({ id, domain, process, answer, memoryLimitBytes, forget });
    } catch (error) {
      forget();
      process.cancel(id);
      throw error;
    }
  }

  #loaded(parts: {
    id: string;
    domain: Domain;
    process: HostProcess;
    answer: Answer;
    memoryLimitBytes: number;
    forget: () => void;
  }): WasmInstance {
    const { id, domain, process, answer, memoryLimitBytes, forget } = parts;
    const { error, fuelUsed } = answer.outcome;
    if (error !== null) throw errorOf(error, { ...outputs(answer), fuelUsed });
    const instance: WasmInstance = new LoadedModule({
      id,
      domain: domain.name,
      process,
      memoryLimitBytes,
      loaded: answer,
      reserve: (more) => this.#domains.reserve(domain, more),
      left: (memory) => {
        forget();
        this.#open.delete(instance);
        this.#domains.leave(domain, memory);
      },
    });
    this.#open.add(instance);
    if (this.#closed) {
      void instance.close();
      throw new AppError("Unavailable", "The sandbox is shutting down.");
    }
    return instance;
  }

  async #trial(): Promise<Availability> {
    try {
      await using instance = await this.start({ domain: "probe", bytes: TRIAL_MODULE });
      const { results } = await instance.call("answer");
      if (results[0] === TRIAL_ANSWER) return { available: true, tier: null, reasons: [] };
      return { available: false, tier: null, reasons: ["A trial module computed something wrong."] };
    } catch (error) {
      return notAvailable(error);
    }
  }
}

/** Throws AppError InvalidParams, PayloadTooLarge. */
function check({ domain, bytes, args = [], env = {}, stdin, files }: WasmSpec): void {
  const refuse = (message: string, hint: string): never => {
    throw new AppError("InvalidParams", message, { hint });
  };
  if (domain === "") refuse("The module belongs to no domain.", "Name the user and project it runs for.");
  const tooLarge = (what: string, size: number, limit: number) => {
    if (size > limit)
      throw new AppError("PayloadTooLarge", `${what} has ${size} bytes; ${limit} are allowed.`);
  };
  tooLarge("The module", bytes.length, MODULE_LIMITS.moduleBytes);
  tooLarge("Standard input", stdin?.length ?? 0, WASM_LIMITS.stdinBytes);
  const texts = [...args, ...Object.entries(env).map(([name, value]) => `${name}=${value}`)];
  if (texts.length > WASM_LIMITS.args) {
    refuse(`There are ${texts.length} arguments and variables.`, `At most ${WASM_LIMITS.args}.`);
  }
  if (texts.some((text) => text.includes("\0")))
    refuse("An argument or variable holds a NUL.", "A NUL would end it.");
  if (Object.keys(env).some((name) => name === "" || name.includes("="))) {
    refuse("A variable has no usable name.", "Not empty, and without `=`.");
  }
  tooLarge("All arguments", Buffer.byteLength(texts.join("\0")), WASM_LIMITS.argsBytes);
  const maxBytes = files?.maxBytes ?? 1;
  if (!Number.isSafeInteger(maxBytes) || maxBytes <= 0)
    refuse(`files.maxBytes is ${maxBytes}.`, "A positive number.");
}
