import type { Database } from "#database";
import { readFile } from "#database/projects/index.ts";
import type { Caller } from "#platform/authenticate.ts";
import type { Config } from "#platform/config/config.ts";
import type { Log } from "#platform/log.ts";
import type { WasmEngine, WasmInstance } from "#sandbox";
import { AppError, type MethodParams, type MethodResult } from "#schemas";
import { Held } from "./held.ts";
import { ProjectFiles } from "./project-files.ts";
import { checkTime } from "./time-limit.ts";
import { checkRoom } from "./workplace.ts";

interface Module {
  readonly instance: WasmInstance;
  readonly files: ProjectFiles;
  /** A path of the project, or "bytes". */
  readonly source: string;
  readonly release: () => void;
  idle: NodeJS.Timeout;
  /** Calls at work: while there are any it is not idle. */
  calls: number;
}

export interface ModulesDeps {
  readonly database: Database;
  readonly config: Config;
  readonly engine: WasmEngine;
  readonly log: Log;
}

/** The WebAssembly instances of all users. */
export class Modules {
  readonly #deps: ModulesDeps;
  readonly #held: Held<Module>;

  constructor(deps: ModulesDeps) {
    this.#deps = deps;
    this.#held = new Held({
      what: "WebAssembly instance",
      perUser: deps.config.wasm.instancesPerUser,
      hint: "Unload one of those that wasm.instances shows.",
    });
  }

  /** Who asks must own the project. @throws AppError NotFound, InvalidModule, QuotaExceeded, and what it ran into. */
  async load(
    caller: Caller,
    params: MethodParams<"wasm.load">,
    signal: AbortSignal,
  ): Promise<MethodResult<"wasm.load">> {
    const { database, config, engine } = this.#deps;
    const { project_id, path, args, env, stdin } = params;
    const memoryBytes = this.#memory(params.memory_limit);
    const release = this.#held.reserve(caller.user_id);
    try {
      await checkRoom(config);
      const bytes =
        path === undefined
          ? Buffer.from(params.bytes ?? "", "base64")
          : (await readFile(database.db, project_id, path)).content;
      const files = new ProjectFiles({ database, project_id, author: caller.username, quota: config.quota });
      const source = path ?? "bytes";
      const instance = await engine.start({
        domain: `${caller.user_id}/${project_id}`,
        bytes,
        memoryBytes,
        files,
        args: [source, ...args],
        env,
        ...(stdin === undefined ? {} : { stdin: Buffer.from(stdin) }),
        timeoutMs: config.wasm.timeoutMs,
        signal,
      });
      const value: Module = { instance, files, source, release, idle: this.#idle(instance.id), calls: 0 };
      this.#held.add({ id: instance.id, user_id: caller.user_id, project_id, value });
      await files.keep(`Load ${source}`).catch(async (error: unknown) => {
        await this.#end(instance.id);
        throw error;
      });
      return { instance_id: instance.id, exports: instance.exports.map((each) => ({ ...each })) };
    } catch (error) {
      release();
      throw error;
    }
  }

  /** @throws AppError NotFound, InvalidParams, OutOfFuel, WasmTrap, Timeout, QuotaExceeded. */
  async call(
    user_id: string,
    params: MethodParams<"wasm.call">,
    signal: AbortSignal,
  ): Promise<MethodResult<"wasm.call">> {
    const { config } = this.#deps;
    const module = this.#held.find(user_id, params.instance_id).value;
    const { instance, files, source } = module;
    checkTime(params.timeout_ms, config.wasm.timeoutMs);
    clearTimeout(module.idle);
    module.calls += 1;
    const { fuel = config.wasm.fuel, timeout_ms: timeoutMs = config.wasm.timeoutMs } = params;
    const summary = `Call ${params.function} of ${source}`;
    try {
      const result = await instance.call(params.function, params.args, { fuel, timeoutMs, signal });
      const revision = await files.keep(summary);
      return {
        results: [...result.results],
        fuel_used: result.fuelUsed,
        stdout: result.stdout,
        stderr: result.stderr,
        truncated: result.stdoutTruncated || result.stderrTruncated,
        ...(result.exitCode === undefined ? {} : { exit_code: result.exitCode }),
        ...(revision === undefined ? {} : { revision }),
      };
    } catch (error) {
      if (!instance.alive) await this.#end(instance.id);
      // What it wrote before it failed is there, as with any program; the failure is what the caller is told.
      await files.keep(summary).catch((lost: unknown) => {
        this.#deps.log.warn({ err: lost }, "what a module wrote could not be kept");
      });
      throw error;
    } finally {
      module.calls -= 1;
      if (module.calls === 0 && instance.alive) {
        clearTimeout(module.idle);
        module.idle = this.#idle(instance.id);
      }
    }
  }

  /** @throws AppError NotFound, InvalidParams below what is used and above what the operator allows, QuotaExceeded. */
  async limit(
    user_id: string,
    { instance_id, bytes }: MethodParams<"wasm.memory_limit">,
  ): Promise<MethodResult<"wasm.memory_limit">> {
    const { instance } = this.#held.find(user_id, instance_id).value;
    await instance.setMemoryLimit(this.#memory(bytes));
    return { instance_id, bytes: instance.memoryLimitBytes, used: instance.memoryBytes };
  }

  list(user_id: string, project_id?: string): MethodResult<"wasm.instances"> {
    return {
      instances: this.#held.of(user_id, project_id).map(({ id, project_id: project, value }) => ({
        instance_id: id,
        project_id: project ?? "",
        source: value.source,
        started_at: new Date(value.instance.startedAt).toISOString(),
        memory_bytes: value.instance.memoryBytes,
        memory_limit_bytes: value.instance.memoryLimitBytes,
      })),
    };
  }

  /** @throws AppError NotFound. */
  async unload(user_id: string, instance_id: string): Promise<void> {
    this.#held.find(user_id, instance_id);
    await this.#end(instance_id);
  }

  async endProject(project_id: string): Promise<void> {
    const theirs = this.#held.all().filter((entry) => entry.project_id === project_id);
    await Promise.all(theirs.map(({ id }) => this.#end(id)));
  }

  async close(): Promise<void> {
    await Promise.all(this.#held.all().map(({ id }) => this.#end(id)));
  }

  #idle(id: string): NodeJS.Timeout {
    return setTimeout(() => void this.#end(id), this.#deps.config.wasm.idleMs).unref();
  }

  #memory(wanted: number | undefined): number {
    const { memoryBytes, maxMemoryBytes } = this.#deps.config.wasm;
    if (wanted === undefined || wanted <= maxMemoryBytes) return wanted ?? memoryBytes;
    throw new AppError("InvalidParams", `At most ${maxMemoryBytes} bytes of memory here.`, {
      hint: "The operator sets it by CDS_WASM_MAX_MEMORY_MB.",
    });
  }

  /** Idempotent; never throws. */
  async #end(id: string): Promise<void> {
    const entry = this.#held.all().find((each) => each.id === id);
    if (entry === undefined) return;
    this.#held.delete(id);
    const { instance, idle, release } = entry.value;
    clearTimeout(idle);
    await instance.close().catch((error: unknown) => {
      this.#deps.log.warn({ err: error }, "a WebAssembly instance could not be closed");
    });
    release();
  }
}
