import { relative } from "node:path";
import type { ExecOptions, ExecResult, HostEntry, ToolHost } from "#agents/tools/index.ts";
import {
  type Command,
  type CommandResult,
  Jail,
  type NetworkAccess,
  operation,
  ownerOf,
  type SandboxHost,
  type SandboxSpec,
  type Slot,
  startCommand,
  withNode,
} from "#sandbox";
import { AppError } from "#schemas";
import { INSIDE } from "../opencode/config.ts";
import { listFiles } from "./list-files.ts";

/** The working directory in the area. */
const WORK = relative(INSIDE.area, INSIDE.work);
const MAX_LISTED = 10_000;
const OUTPUT_BYTES = 32 * 1024;
const MAX_HOSTS_NAMED = 10;
/** A command that writes more than this is ended. */
const FLOOD_BYTES = 128 * 1024 * 1024;
/** Errors go where the output goes, in the order they are written; bash where the machine has it, as models expect. */
const SHELL = 'if command -v bash >/dev/null; then exec bash -c "$1"; else exec sh -c "$1"; fi 2>&1';

export interface SandboxToolHostOptions {
  readonly sandboxes: Pick<SandboxHost, "start">;
  /** Where commands run, and whose user owns what is written. */
  readonly slot: Slot;
  /** Host directories behind INSIDE.area and INSIDE.home, in the slot's own. */
  readonly area: string;
  readonly home: string;
  readonly limits: SandboxSpec["limits"];
  /** Largest file that is read or written here, bytes. */
  readonly fileBytes: number;
  /** The way to granted hosts; without it commands have no network. Closed by whoever opened it, after this. */
  readonly network?: Pick<NetworkAccess, "bridge" | "env"> | undefined;
  /** `host:port` that were asked for and not granted; emptied when the agent has been told. */
  readonly refusedHosts?: Set<string>;
}

/**
 * The native loop's tools at work in one slot: files without ever following a link out of the working directory,
 * each command in a sandbox of its own. What the agent runs may change the files at any moment; nothing here trusts
 * them.
 */
export class SandboxToolHost implements ToolHost, AsyncDisposable {
  readonly directory = INSIDE.work;
  readonly #options: SandboxToolHostOptions;
  readonly #jail: Jail;
  /** Commands under way, from before they are started. */
  readonly #running = new Set<Promise<unknown>>();
  readonly #closed = new AbortController();
  #closing: Promise<void> | undefined;

  private constructor(options: SandboxToolHostOptions, jail: Jail) {
    this.#options = options;
    this.#jail = jail;
  }

  /** The files need not be there yet. @throws AppError when there is no area. */
  static async open(options: SandboxToolHostOptions): Promise<SandboxToolHost> {
    const jail = await Jail.open(options.area, { owner: ownerOf(options.slot) });
    return new SandboxToolHost(options, jail);
  }

  async read(path: string): Promise<Uint8Array> {
    const { fileBytes } = this.#options;
    return this.#files("read", path, async (place) => (await this.#jail.read(place, fileBytes)).content);
  }

  /** A program stays one: whether it may be run is kept. */
  async write(path: string, content: Uint8Array): Promise<void> {
    const { fileBytes } = this.#options;
    if (content.byteLength > fileBytes) {
      throw new AppError("PayloadTooLarge", `${path} would be larger than ${fileBytes} bytes.`);
    }
    await this.#files("write", path, async (place) => {
      const { executable, kind } = await this.#jail.stat(place).catch(unlessMissing);
      if (kind === "directory") throw new AppError("Conflict", `${path} is a directory.`);
      await this.#jail.write(place, content, { executable });
    });
  }

  async remove(path: string): Promise<void> {
    await this.#files("remove", path, (place) => this.#jail.remove(place));
  }

  async list(path: string): Promise<readonly HostEntry[]> {
    const entries = await this.#files("list", path, (place) => this.#jail.list(place, MAX_LISTED));
    return entries.flatMap(({ name, kind }) => (kind === "other" ? [] : [{ name, kind }]));
  }

  async walk({ maxFiles }: { readonly maxFiles: number }): Promise<readonly string[]> {
    return this.#files("walk", "", (place) => listFiles(this.#jail, place, maxFiles));
  }

  /** @throws AppError EngineUnavailable and the like, what `signal` was aborted with once nothing of it is left. */
  async exec(command: string, options: ExecOptions): Promise<ExecResult> {
    const run = this.#exec(command, options);
    this.#running.add(run);
    try {
      return await run;
    } finally {
      this.#running.delete(run);
    }
  }

  /** Whether a command is under way, or its end is. */
  get busy(): boolean {
    return this.#running.size > 0;
  }

  /** End what runs; resolves when nothing of it is left. Files stay as they are. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#closed.abort(new AppError("Cancelled", "The run was ended."));
    await this.idle();
    await this.#jail.close();
  }

  /** Resolves when no command is left: one that was ended takes a moment. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.allSettled(this.#running);
  }

  async #exec(line: string, options: ExecOptions): Promise<ExecResult> {
    const { timeoutMs, outputBytes = OUTPUT_BYTES } = options;
    const signal = AbortSignal.any([options.signal, this.#closed.signal]);
    signal.throwIfAborted();
    if (line.includes("\0")) throw new AppError("InvalidParams", "A command cannot hold a NUL.");
    const limits = { outputBytes, timeoutMs, floodBytes: FLOOD_BYTES, signal };
    let command: Command;
    try {
      command = await startCommand(this.#options.sandboxes, this.#specification(line), limits);
    } catch (error) {
      signal.throwIfAborted();
      throw error;
    }
    const result = await command.finished;
    signal.throwIfAborted();
    return this.#told(result);
  }

  #specification(line: string): SandboxSpec {
    const { slot, area, home, limits, network } = this.#options;
    return withNode({
      name: `agent-${slot.index}`,
      argv: ["/bin/sh", "-c", SHELL, "sh", line],
      env: { HOME: INSIDE.home, ...network?.env },
      cwd: INSIDE.work,
      mounts: [
        { source: area, target: INSIDE.area, mode: "rw" },
        { source: home, target: INSIDE.home, mode: "rw" },
      ],
      limits,
      slot,
      ...(network === undefined ? {} : { bridge: network.bridge }),
    });
  }

  #told({ exit_code, signal, stdout, stderr, truncated, limit }: CommandResult): ExecResult {
    // What the sandbox itself says when a command could not be started comes as its error.
    const output = Buffer.concat([stdout, stderr]).toString("utf8");
    const note = limit === undefined ? undefined : this.#limitNote(limit);
    const notes = [note, this.#refusedNote()].flatMap((each) => (each === undefined ? [] : `\n[${each}]`));
    return {
      code: signal === undefined ? exit_code : null,
      output: `${output}${notes.join("")}`,
      truncated,
      timedOut: limit === "time",
    };
  }

  #refusedNote(): string | undefined {
    const { refusedHosts } = this.#options;
    if (refusedHosts === undefined || refusedHosts.size === 0) return undefined;
    const named = [...refusedHosts].slice(0, MAX_HOSTS_NAMED).join(", ");
    refusedHosts.clear();
    return `Not granted: ${named}. Nobody can grant it while you run.`;
  }

  #limitNote(limit: NonNullable<CommandResult["limit"]>): string | undefined {
    const { memoryBytes, processes, fileBytes } = this.#options.limits;
    const megabytes = (bytes: number) => `${Math.round(bytes / 1024 / 1024)} MB`;
    if (limit === "time") return undefined;
    if (limit === "memory") return `Ended: it needed more than its ${megabytes(memoryBytes)} of memory.`;
    if (limit === "processes") return `It may have no more than ${processes} processes.`;
    if (limit === "file") return `No file it writes may be larger than ${megabytes(fileBytes)}.`;
    return `Ended: it wrote more than ${megabytes(FLOOD_BYTES)} of output.`;
  }

  /** An operation on a path of the working directory; errors name the path as the agent does. */
  #files<T>(name: string, path: string, act: (place: string) => Promise<T>): Promise<T> {
    return operation("fs", name, {}, async () => {
      try {
        return await act(path === "" ? WORK : `${WORK}/${path}`);
      } catch (error) {
        throw error instanceof AppError ? inAgentsWords(error) : error;
      }
    });
  }
}

function unlessMissing(error: unknown): { executable: boolean; kind: "file" } {
  if (error instanceof AppError && error.code === "NotFound") return { executable: false, kind: "file" };
  throw error;
}

function inAgentsWords({ code, message, details }: AppError): AppError {
  const told = message.replaceAll(`${WORK}/`, "").replaceAll(WORK, "the working directory");
  const tooLarge = code === "PayloadTooLarge";
  const hint = tooLarge ? "Look at parts of it: grep, or head, tail and sed with bash." : details.hint;
  return new AppError(code, told, hint === undefined ? {} : { hint });
}
