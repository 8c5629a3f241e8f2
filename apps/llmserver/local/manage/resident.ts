import type { Log } from "#platform/log.ts";
import { Serial } from "#platform/serial.ts";
import { AppError, type LocalModelView } from "#schemas";
import { startEngine } from "../start-engine.ts";
import type { EngineInfo, LoadOptions } from "../types.ts";
import { FailureBook } from "./failure-book.ts";
import { Instance, type ModelUse } from "./instance.ts";
import type { IdleModel, ModelMemory } from "./memory.ts";
import { GivenUp, SharedWork, unlessAborted } from "./shared-work.ts";

/** What is loaded, and how. */
export interface LoadPlan {
  readonly path: string;
  readonly options: LoadOptions;
}

export interface ResidentDeps {
  log: Log;
  memory: ModelMemory;
  limits: { waiting: number; loadMs: number };
  idleMs: number;
  /** Requests in work may finish for so long before their model ends, ms. */
  graceMs: number;
  /** Told, in order, when it was loaded and when it is gone; must not fail. */
  onChange: (name: string, info: EngineInfo | undefined) => Promise<void>;
}

/** One model of this machine: not loaded, being loaded, loaded, or on its way out. */
export class Resident {
  readonly name: string;
  /** What administrators want of it, one thing after another. */
  readonly orders = new Serial();
  readonly #deps: ResidentDeps;
  readonly #failures = new FailureBook();
  readonly #changes = new Serial();
  #instance: Instance | undefined;
  #load: { plan: LoadPlan; work: SharedWork<void> } | undefined;
  #ending: Promise<void> | undefined;
  /** An administrator's, before what the database says. */
  #wanted: LoadPlan | undefined;
  #refusal: AppError | undefined;
  /** How the instance was loaded. */
  #options: LoadOptions = {};

  constructor(name: string, deps: ResidentDeps) {
    this.name = name;
    this.#deps = deps;
  }

  get state(): LocalModelView["state"] {
    if (this.#ending !== undefined) return "unloading";
    if (this.#instance !== undefined) return "loaded";
    return this.#load === undefined ? "unloaded" : "loading";
  }

  get loaded(): Pick<Instance, "model" | "loadedAt"> | undefined {
    return this.#ending === undefined ? this.#instance : undefined;
  }

  /** Undefined while anybody uses it, or it is not loaded. `since` on the clock of `performance.now()`. */
  get idle(): (IdleModel & { since: number }) | undefined {
    const instance = this.#instance;
    if (instance === undefined || this.#ending !== undefined || !instance.isIdle) return undefined;
    return {
      since: instance.lastUsed,
      memoryBytes: () => instance.model.memoryBytes(),
      evict: () => this.#endIdle(instance),
    };
  }

  /**
   * The loaded model; it is loaded by `plan` when nobody has done so. Callers share one load, which is given up when all
   * of them have left.
   * @throws AppError; what `plan` throws; the signal's reason.
   */
  async open(signal: AbortSignal, plan: () => Promise<LoadPlan>): Promise<ModelUse> {
    for (;;) {
      signal.throwIfAborted();
      if (this.#refusal !== undefined) throw this.#refusal;
      if (this.#ending !== undefined) await unlessAborted(this.#ending, signal);
      else if (this.#instance !== undefined) return this.#instance.use();
      else if (this.#load !== undefined) await this.#waitFor(this.#load.work, signal);
      else await this.#loadFor(plan, signal);
    }
  }

  /**
   * Load it as told, again if it is loaded otherwise: the requests in work finish first, new ones wait. An order: one at
   * a time.
   * @throws AppError.
   */
  async load(plan: LoadPlan): Promise<void> {
    this.#refusal = undefined;
    this.#failures.clear();
    if (this.loaded !== undefined && sameOptions(this.#options, plan.options)) return;
    this.#wanted = plan;
    try {
      if (this.#load !== undefined && !sameOptions(this.#load.plan.options, plan.options)) {
        const { work } = this.#load;
        work.end(new GivenUp());
        await work.settled();
      }
      await this.end();
      while (this.#instance === undefined) {
        if (this.#refusal !== undefined) throw this.#refusal;
        this.#failures.check();
        // A request that waited may have begun it by now, with the same plan.
        await this.#waitFor((this.#load ?? this.#begin(plan)).work);
      }
    } finally {
      this.#wanted = undefined;
    }
  }

  /** From now on nobody gets it, for this reason; a load under way fails with it. What is in work goes on. */
  refuse(reason: AppError): void {
    this.#refusal = reason;
    this.#load?.work.end(reason);
  }

  /** The refusal is over. */
  allow(): void {
    this.#refusal = undefined;
  }

  /** Its file is another one. */
  forgetFailures(): void {
    this.#failures.clear();
  }

  /** End what is loaded or being loaded; requests in work may finish for `graceMs`. Idempotent. */
  async end(graceMs: number = this.#deps.graceMs): Promise<void> {
    const load = this.#load;
    if (this.#refusal !== undefined) await load?.work.settled();
    const instance = this.#instance;
    if (instance === undefined) return;
    this.#ending ??= this.#endInstance(instance, graceMs);
    await this.#ending;
  }

  async #endInstance(instance: Instance, graceMs: number): Promise<void> {
    try {
      await instance.end(graceMs);
      // That it is gone is written down before anybody loads it again.
      await this.#changes.run(async () => undefined);
    } finally {
      this.#ending = undefined;
    }
  }

  async #endIdle(instance: Instance): Promise<void> {
    if (this.#instance === instance && this.#ending === undefined && instance.isIdle) await this.end(0);
  }

  async #loadFor(plan: () => Promise<LoadPlan>, signal: AbortSignal): Promise<void> {
    this.#failures.check();
    const asked = this.#wanted ?? (await unlessAborted(plan(), signal));
    // Much may have happened while the database answered.
    if (this.#refusal !== undefined || this.state !== "unloaded") return;
    await this.#waitFor(this.#begin(this.#wanted ?? asked).work, signal);
  }

  async #waitFor(work: SharedWork<void>, signal?: AbortSignal): Promise<void> {
    try {
      await work.wait(signal);
    } catch (error) {
      if (!(error instanceof GivenUp)) throw error;
    }
  }

  #begin(plan: LoadPlan): { plan: LoadPlan; work: SharedWork<void> } {
    const load = { plan, work: new SharedWork((signal) => this.#start(plan, signal)) };
    this.#load = load;
    return load;
  }

  async #start({ path, options }: LoadPlan, signal: AbortSignal): Promise<void> {
    const { log, memory, limits, idleMs } = this.#deps;
    const holding = memory.holding();
    try {
      const model = await startEngine({
        model_id: this.name,
        path,
        load: options,
        log,
        admit: ({ bytes }) => memory.admit(holding, bytes, signal),
        signal,
        limits,
      });
      holding.resident = () => model.memoryBytes();
      const instance: Instance = new Instance(model, { idleMs, onIdle: () => void this.#endIdle(instance) });
      void model.closed.then(({ wanted }) => {
        holding[Symbol.dispose]();
        this.#gone(instance, wanted);
      });
      await this.#loaded(instance, options, signal);
    } catch (error) {
      holding[Symbol.dispose]();
      this.#failures.failed(error);
      throw error;
    } finally {
      this.#load = undefined;
    }
  }

  async #loaded(instance: Instance, options: LoadOptions, signal: AbortSignal): Promise<void> {
    const { model } = instance;
    await this.#changes.run(() => this.#deps.onChange(this.name, model.info));
    // Given up, or gone, while that was written down.
    if (signal.aborted) {
      await model.close();
      throw signal.reason;
    }
    if (instance.isGone) {
      throw new AppError("EngineUnavailable", "The model's process ended as soon as it was loaded.");
    }
    this.#instance = instance;
    this.#options = options;
  }

  /** Its process has ended, as wanted or not. */
  #gone(instance: Instance, wanted: boolean): void {
    if (this.#instance === instance) {
      this.#instance = undefined;
      if (!wanted) this.#failures.crashed();
    }
    void this.#changes.run(() => this.#deps.onChange(this.name, undefined));
  }
}

/** Left out and undefined are the same. */
function sameOptions(one: LoadOptions, other: LoadOptions): boolean {
  const names = new Set([...Object.keys(one), ...Object.keys(other)]) as Set<keyof LoadOptions>;
  return [...names].every((name) => one[name] === other[name]);
}
