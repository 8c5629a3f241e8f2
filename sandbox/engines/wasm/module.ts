import { AppError } from "#schemas";
import { operation } from "../../operations.ts";
import type { ToHost } from "./host/protocol.ts";
import { decodeValue, ValueError } from "./host/values.ts";
import type { Answer, HostProcess } from "./host-process.ts";
import { WASM_LIMITS } from "./limits.ts";
import { PAGE_BYTES } from "./meter/limits.ts";
import { errorOf } from "./replies.ts";
import type { WasmCallOptions, WasmCallResult, WasmExport, WasmInstance, WasmValue } from "./types.ts";

type Order = Exclude<ToHost, { type: "cancel" | "file" }>;

export interface ModuleInput {
  id: string;
  domain: string;
  process: HostProcess;
  memoryLimitBytes: number;
  loaded: Answer;
  /** Take more memory of the domain's, or give some back. Throws AppError QuotaExceeded. */
  reserve: (bytes: number) => void;
  /** It has ended: its place is free, with so much memory. */
  left: (memoryBytes: number) => void;
}

/** Fuel and time of a call or load, checked. Throws AppError InvalidParams. */
export function budget(given: WasmCallOptions, timeoutMs: number): { fuel: number; timeoutMs: number } {
  const fuel = given.fuel ?? WASM_LIMITS.defaultFuel;
  const time = given.timeoutMs ?? timeoutMs;
  const check = (name: string, value: number, limit: number) => {
    if (Number.isSafeInteger(value) && value > 0 && value <= limit) return;
    throw new AppError("InvalidParams", `${name} is ${value}.`, {
      hint: `A whole number from 1 to ${limit}.`,
    });
  };
  check("fuel", fuel, WASM_LIMITS.maxFuel);
  check("timeoutMs", time, WASM_LIMITS.maxTimeoutMs);
  return { fuel, timeoutMs: time };
}

/** Bytes as whole pages. Throws AppError InvalidParams. */
export function memoryLimit(bytes: number): number {
  const limit = WASM_LIMITS.domainMemoryBytes;
  if (!Number.isSafeInteger(bytes) || bytes < PAGE_BYTES || bytes > limit) {
    throw new AppError("InvalidParams", `The memory limit is ${bytes}.`, {
      hint: `A whole number of bytes from ${PAGE_BYTES} to ${limit}.`,
    });
  }
  return Math.floor(bytes / PAGE_BYTES) * PAGE_BYTES;
}

/** What a module wrote, cut where the host says that the one output ends and the other begins. */
export function outputs({ outcome, output }: Answer): { stdout: string; stderr: string } {
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return {
    stdout: text(output.subarray(0, outcome.stdoutBytes)),
    stderr: text(output.subarray(outcome.stdoutBytes)),
  };
}

/** The result's values as the function's type says, or undefined: the host may send anything. */
function fits(results: readonly WasmValue[], { results: types }: WasmExport): boolean {
  if (results.length !== types.length) return false;
  return results.every((value, index) => {
    try {
      decodeValue(value, types[index] ?? "externref");
      return true;
    } catch {
      return false;
    }
  });
}

/** A loaded module, as its caller holds it. */
export class LoadedModule implements WasmInstance {
  readonly id: string;
  readonly startedAt = Date.now();
  readonly domain: string;
  readonly exports: readonly WasmExport[];
  readonly cached: boolean;
  readonly #input: ModuleInput;
  readonly #functions: ReadonlyMap<string, WasmExport>;
  #memoryBytes: number;
  #memoryLimitBytes: number;
  #queue: Promise<unknown> = Promise.resolve();
  #queued = 0;
  #dead: AppError | undefined;

  constructor(input: ModuleInput) {
    const { outcome, loaded } = input.loaded;
    this.#input = input;
    this.id = input.id;
    this.domain = input.domain;
    this.exports = loaded?.exports ?? [];
    this.cached = loaded?.cached === true;
    this.#functions = new Map(
      this.exports.filter(({ kind }) => kind === "function").map((each) => [each.name, each]),
    );
    this.#memoryBytes = outcome.memoryBytes;
    this.#memoryLimitBytes = input.memoryLimitBytes;
    void input.process.gone.then(() => this.#die("Its process has ended."));
  }

  get memoryBytes(): number {
    return this.#memoryBytes;
  }

  get memoryLimitBytes(): number {
    return this.#memoryLimitBytes;
  }

  get alive(): boolean {
    return this.#dead === undefined && this.#input.process.alive;
  }

  call(
    name: string,
    args: readonly WasmValue[] = [],
    options: WasmCallOptions = {},
  ): Promise<WasmCallResult> {
    return operation("wasm", "call", { arguments: args.length }, async () => {
      const known = this.#check(name, args);
      const { fuel, timeoutMs } = budget(options, WASM_LIMITS.defaultTimeoutMs);
      const { id } = this;
      const answer = await this.#ask(
        (order) => ({ type: "call", id: order, instance: id, name, args: [...args], fuel, timeoutMs }),
        timeoutMs,
        options.signal,
      );
      const { results, fuelUsed, exitCode, stdoutTruncated, stderrTruncated } = answer.outcome;
      if (exitCode === null && !fits(results, known)) {
        this.#input.process.fail("gave results that are none of the function's");
        throw new AppError("Unavailable", "The process that ran the module was ended.");
      }
      const exit = exitCode === null ? {} : { exitCode };
      const { memoryBytes } = this;
      return {
        results,
        fuelUsed,
        ...outputs(answer),
        stdoutTruncated,
        stderrTruncated,
        memoryBytes,
        ...exit,
      };
    });
  }

  setMemoryLimit(bytes: number): Promise<void> {
    return operation("wasm", "memory_limit", { bytes }, async () => {
      const limit = memoryLimit(bytes);
      const more = limit - this.#memoryLimitBytes;
      // More is taken first and less is given back last: the sum never exceeds what there is.
      if (more > 0) this.#input.reserve(more);
      try {
        await this.#ask(
          (id) => ({ type: "limit", id, instance: this.id, memoryPages: limit / PAGE_BYTES }),
          WASM_LIMITS.defaultTimeoutMs,
        );
        if (this.#dead !== undefined) throw this.#dead;
      } catch (error) {
        // Its end gave back only what it had before.
        if (more > 0) this.#input.reserve(-more);
        throw error;
      }
      if (more < 0) this.#input.reserve(more);
      this.#memoryLimitBytes = limit;
    });
  }

  close(): Promise<void> {
    return operation("wasm", "unload", {}, async () => {
      if (this.#dead !== undefined) return;
      this.#input.process.cancel(this.id);
      this.#die("It was closed.");
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #check(name: string, args: readonly WasmValue[]): WasmExport {
    const known = this.#functions.get(name);
    if (known === undefined) {
      throw new AppError(
        "InvalidParams",
        `The module exports no function ${JSON.stringify(name.slice(0, 100))}.`,
        {
          hint: `It exports: ${[...this.#functions.keys()].slice(0, 20).join(", ") || "none"}.`,
        },
      );
    }
    const refuse = (path: string, message: string): never => {
      const hint = `${name} takes (${known.params.join(", ")}) and gives (${known.results.join(", ")}).`;
      throw new AppError("InvalidParams", `${message}.`, { hint, issues: [{ path, message }] });
    };
    if (args.length !== known.params.length) {
      refuse("args", `${name} takes ${known.params.length} arguments, not ${args.length}`);
    }
    for (const [index, type] of known.params.entries()) {
      try {
        decodeValue(args[index], type);
      } catch (error) {
        if (!(error instanceof ValueError)) throw error;
        refuse(`args[${index}]`, `Argument ${index} of ${name}: ${error.message}`);
      }
    }
    const odd = known.results.find((type) => !["i32", "i64", "f32", "f64"].includes(type));
    if (odd !== undefined)
      refuse("function", `${name} gives a ${odd}, which cannot be given or taken from outside`);
    return known;
  }

  /** One at a time, in the order they come. */
  async #ask(make: (id: number) => Order, timeoutMs: number, signal?: AbortSignal): Promise<Answer> {
    if (this.#queued >= WASM_LIMITS.waitingCalls) {
      throw new AppError("QuotaExceeded", `${this.#queued} calls of this module wait already.`, {
        hint: "Wait for one of them, or load the module again beside this one.",
      });
    }
    this.#queued += 1;
    const before = this.#queue;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#queue = promise;
    try {
      await before;
      if (signal?.aborted) throw new AppError("Cancelled", "The call was cancelled before it began.");
      if (this.#dead !== undefined) throw this.#dead;
      const answer = await this.#input.process.ask(make, new Uint8Array(), timeoutMs, signal);
      this.#settle(answer);
      return answer;
    } finally {
      this.#queued -= 1;
      resolve();
    }
  }

  #settle(answer: Answer): void {
    const { memoryBytes, error, dead, fuelUsed } = answer.outcome;
    this.#memoryBytes = memoryBytes;
    if (dead) {
      this.#input.process.cancel(this.id);
      this.#die(error?.message ?? "It has ended.");
    }
    if (error !== null) throw errorOf(error, { ...outputs(answer), fuelUsed });
  }

  #die(why: string): void {
    if (this.#dead !== undefined) return;
    this.#dead = new AppError("Unavailable", `The module has ended. ${why}`, {
      hint: "Load the module again.",
    });
    this.#input.left(this.#memoryLimitBytes);
  }
}
