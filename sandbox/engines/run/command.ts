import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { AppError } from "#schemas";
import { operation } from "../../operations.ts";
import type { SandboxHost } from "../../sandboxes.ts";
import type { Instance, LimitName, SandboxProcess, SandboxSpec } from "../../types.ts";
import { KeptOutput, unfinishedBytes } from "./kept-output.ts";

/** Between the request to end (SIGTERM) and the end. */
const GRACE_MS = 2000;
/** How long whoever takes the output may hold everything up. */
const STALL_MS = 30_000;
/** A program that writes more than this is ended: reading it costs the server as much as it. */
const FLOOD_BYTES = 1024 ** 3;
/** Between two pieces (64 KiB at most) of output that is not kept: a flood is no reason for others to wait. */
const UNKEPT_PAUSE_MS = 1;
const MAX_INPUT_BYTES = 16 * 1024 * 1024;
const MAX_OUTPUT_BYTES = 64 * 1024 * 1024;
const MAX_TIMEOUT_MS = 24 * 3_600_000;

export type OutputName = "stdout" | "stderr";

export interface CommandOptions {
  /** Kept of each stream; beyond that the middle is left out, and what is left out is told in its place. */
  outputBytes: number;
  /** Then the program is asked to end, and made to 2 s later. */
  timeoutMs: number;
  /** Standard input, 16 MiB at most; without it there is none. */
  input?: Uint8Array | string;
  /** Ends the program at once; `finished` still tells what it had written. */
  signal?: AbortSignal;
  /**
   * Takes the output as it comes, one call at a time and no letter of UTF-8 torn; `seq` counts the calls from 0. The
   * program waits for what it answers: after `stallMs` (30 s) it is ended, and `finished` fails with Timeout.
   */
  onOutput?: (stream: OutputName, chunk: Buffer, seq: number) => void | Promise<void>;
  stallMs?: number;
  /** Written in all, kept or not, before the program is ended: 1 GiB. */
  floodBytes?: number;
}

export interface CommandResult {
  /** Null when the sandbox was killed. A program that died of signal n has 128 + n, as in a shell. */
  exit_code: number | null;
  /** The signal that ended the sandbox as a whole. */
  signal?: NodeJS.Signals;
  stdout: Buffer;
  stderr: Buffer;
  /** Whether something was left out of either. */
  truncated: boolean;
  duration_ms: number;
  /** The limit that ended it. */
  limit?: LimitName | "time" | "output";
}

/** A program that runs to its end. */
export interface Command extends Instance {
  /** Its sandbox, for the list of its processes and their use of the machine. */
  readonly process: SandboxProcess;
  /** Fails only when `onOutput` did, or stalled. No process is left by then. */
  readonly finished: Promise<CommandResult>;
  /** Signal the program and its process group; without a signal, end everything at once. */
  kill(signal?: NodeJS.Signals): Promise<void>;
}

function checkNumber(name: string, value: number, most: number): void {
  if (Number.isSafeInteger(value) && value > 0 && value <= most) return;
  throw new AppError("InvalidParams", `${name} is ${value}.`, { hint: `A whole number from 1 to ${most}.` });
}

function checkOptions({ outputBytes, timeoutMs, input, signal }: CommandOptions): void {
  checkNumber("outputBytes", outputBytes, MAX_OUTPUT_BYTES);
  checkNumber("timeoutMs", timeoutMs, MAX_TIMEOUT_MS);
  if (input !== undefined && Buffer.byteLength(input) > MAX_INPUT_BYTES) {
    throw new AppError("PayloadTooLarge", "The command's input is longer than 16 MiB.", {
      hint: "Put it into a file of the workspace.",
    });
  }
  if (signal?.aborted) {
    throw new AppError("Cancelled", "The command was cancelled before it started.", {
      hint: "Run it again.",
    });
  }
}

class RunningCommand implements Command {
  readonly id: string;
  readonly startedAt: number;
  readonly process: SandboxProcess;
  readonly finished: Promise<CommandResult>;
  readonly #options: CommandOptions;
  readonly #kept: Record<OutputName, KeptOutput>;
  readonly #timers = new Set<NodeJS.Timeout>();
  #written = 0;
  #seq = 0;
  /** The call of `onOutput` that is under way. */
  #turn: Promise<void> = Promise.resolve();
  #limit: CommandResult["limit"];
  #failure: { error: unknown } | undefined;
  /** Nobody is told any more of the output. */
  readonly #unheard = new AbortController();

  constructor(process: SandboxProcess, options: CommandOptions) {
    this.process = process;
    this.id = process.id;
    this.startedAt = process.startedAt;
    this.#options = options;
    this.#kept = {
      stdout: new KeptOutput(options.outputBytes),
      stderr: new KeptOutput(options.outputBytes),
    };
    this.finished = this.#run();
    // Whoever started it may have lost interest.
    this.finished.catch(() => undefined);
  }

  async kill(signal?: NodeJS.Signals): Promise<void> {
    if (signal === undefined) await this.process.kill();
    else await this.process.signal(signal);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.kill();
  }

  async #run(): Promise<CommandResult> {
    const { process } = this;
    const { input, signal, timeoutMs } = this.#options;
    const started = performance.now();
    const onAbort = () => this.#end();
    signal?.addEventListener("abort", onAbort, { once: true });
    if (signal?.aborted) onAbort();
    this.#after(timeoutMs, () => this.#outOfTime());
    if (input === undefined) process.stdin.end();
    else process.stdin.end(input);
    try {
      const outputs = [this.#take("stdout", process.stdout), this.#take("stderr", process.stderr)];
      const exit = await process.exited;
      const duration_ms = Math.round(performance.now() - started);
      await Promise.all(outputs);
      if (this.#failure !== undefined) throw this.#failure.error;
      const limit = this.#limit ?? exit.limit;
      return {
        exit_code: exit.code,
        ...(exit.signal === null ? {} : { signal: exit.signal }),
        stdout: this.#kept.stdout.bytes(),
        stderr: this.#kept.stderr.bytes(),
        truncated: this.#kept.stdout.truncated || this.#kept.stderr.truncated,
        duration_ms,
        ...(limit === undefined ? {} : { limit }),
      };
    } finally {
      signal?.removeEventListener("abort", onAbort);
      for (const timer of this.#timers) clearTimeout(timer);
    }
  }

  #after(ms: number, act: () => void): void {
    this.#timers.add(setTimeout(act, ms));
  }

  #outOfTime(): void {
    this.#limit ??= "time";
    this.#after(GRACE_MS, () => this.#end());
    this.process.signal("SIGTERM").catch(() => this.#end());
  }

  /** Everything ends now, waiting for a reader included. */
  #end(): void {
    this.#unheard.abort();
    // A kill that fails is in the log, and `exited` waits for the processes' end all the same.
    this.process.kill().catch(() => undefined);
  }

  async #take(name: OutputName, stream: Readable): Promise<void> {
    let rest: Buffer = Buffer.alloc(0);
    try {
      for await (const chunk of stream as AsyncIterable<Buffer>) {
        this.#count(name, chunk);
        if (this.#options.onOutput === undefined) {
          // Nobody will see it: the program may write it at leisure.
          if (this.#kept[name].truncated) await sleep(UNKEPT_PAUSE_MS);
          continue;
        }
        const text = Buffer.concat([rest, chunk]);
        const whole = text.length - unfinishedBytes(text);
        rest = text.subarray(whole);
        if (whole > 0) await this.#hand(name, text.subarray(0, whole));
      }
    } catch {
      // The stream broke off with its sandbox; what came of it is kept.
    }
    if (rest.length > 0) await this.#hand(name, rest);
  }

  #count(name: OutputName, chunk: Buffer): void {
    this.#kept[name].add(chunk);
    this.#written += chunk.length;
    if (this.#written <= (this.#options.floodBytes ?? FLOOD_BYTES) || this.#limit !== undefined) return;
    this.#limit = "output";
    this.#end();
  }

  /** One call at a time, whichever stream it is for. */
  #hand(name: OutputName, chunk: Buffer): Promise<void> {
    this.#turn = this.#turn.then(() => this.#callOutput(name, chunk));
    return this.#turn;
  }

  async #callOutput(name: OutputName, chunk: Buffer): Promise<void> {
    const { onOutput, stallMs = STALL_MS } = this.#options;
    const { signal } = this.#unheard;
    if (onOutput === undefined || signal.aborted) return;
    const waiting = Promise.withResolvers<void>();
    const timer = setTimeout(() => waiting.reject(notTaken(stallMs)), stallMs);
    const onAbort = () => waiting.resolve();
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      await Promise.race([onOutput(name, chunk, this.#seq++), waiting.promise]);
    } catch (error) {
      this.#failure ??= { error };
      this.#end();
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
    }
  }
}

function notTaken(stallMs: number): AppError {
  return new AppError("Timeout", `The command was ended: its output was not taken for ${stallMs} ms.`, {
    hint: "Read the output as it comes, or ask for it at the end.",
  });
}

/**
 * Run a program to its end and keep what it writes. What is wrong with the program shows in the result; throws what
 * `SandboxHost.start` throws, and AppError InvalidParams, PayloadTooLarge or Cancelled.
 */
export function startCommand(
  host: Pick<SandboxHost, "start">,
  spec: SandboxSpec,
  options: CommandOptions,
): Promise<Command> {
  return operation("run", "command", { bridge: spec.bridge !== undefined }, async () => {
    checkOptions(options);
    return new RunningCommand(await host.start(spec, options.signal), options);
  });
}
