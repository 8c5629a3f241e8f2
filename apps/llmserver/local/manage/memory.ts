import { type Memory, readMemory } from "#platform/host/host-load.ts";
import { Serial } from "#platform/serial.ts";
import { notEnoughMemory } from "./failures.ts";

/** A loaded model nobody uses. */
export interface IdleModel {
  memoryBytes(): Promise<number>;
  /** Unload it, unless somebody uses it by now. */
  evict(): Promise<void>;
}

export interface ModelMemoryOptions {
  /** Never given to a model, bytes. */
  reserveBytes: number;
  /** Models nobody uses, the one unused for longest first. */
  idle: () => IdleModel[];
  /** What the machine has; its own figures unless told. */
  read?: (() => Memory) | undefined;
}

/**
 * Memory promised to one model. A context is reserved when the model is loaded, but its pages are only taken when they are
 * used: until then the machine's figures do not show them.
 */
export interface Holding extends Disposable {
  /** Resident memory of the model's process, bytes, once there is one to ask. */
  resident: () => Promise<number>;
}

/** Decides which models fit into the machine's memory; idle ones make room. */
export class ModelMemory {
  readonly #options: ModelMemoryOptions;
  readonly #promised = new Map<Holding, number>();
  readonly #decisions = new Serial();

  constructor(options: ModelMemoryOptions) {
    this.#options = options;
  }

  read(): Memory {
    return (this.#options.read ?? readMemory)();
  }

  /** A place for what a model will be promised. */
  holding(): Holding {
    const holding: Holding = {
      resident: async () => 0,
      [Symbol.dispose]: () => void this.#promised.delete(holding),
    };
    return holding;
  }

  /**
   * Promise `bytes` to a holding, unloading idle models when there is no other way, and none when that would not help.
   * @throws AppError Unavailable with needed_bytes and available_bytes; the signal's reason.
   */
  admit(holding: Holding, bytes: number, signal: AbortSignal): Promise<void> {
    return this.#decisions.run(async () => {
      if ((await this.#free()) < bytes) await this.#makeRoom(bytes);
      signal.throwIfAborted();
      this.#promised.set(holding, bytes);
    });
  }

  async #makeRoom(bytes: number): Promise<void> {
    const idle = this.#options.idle();
    const sizes = await Promise.all(idle.map((model) => model.memoryBytes()));
    const possible = sizes.reduce((sum, size) => sum + size, await this.#free());
    if (possible < bytes) throw this.#refusal(bytes, possible);
    for (const model of idle) {
      await model.evict();
      if ((await this.#free()) >= bytes) return;
    }
    throw this.#refusal(bytes, await this.#free());
  }

  #refusal(bytes: number, available: number): Error {
    const everFits = bytes <= this.read().totalBytes - this.#options.reserveBytes;
    return notEnoughMemory(bytes, Math.max(0, Math.floor(available)), everFits);
  }

  /** Bytes nobody has, nobody was promised, and that are not kept for everything else. */
  async #free(): Promise<number> {
    const open = await Promise.all(
      [...this.#promised].map(async ([holding, bytes]) => Math.max(0, bytes - (await holding.resident()))),
    );
    return open.reduce(
      (left, bytes) => left - bytes,
      this.read().availableBytes - this.#options.reserveBytes,
    );
  }
}
