import type { Caller } from "#platform/authenticate.ts";
import { type Command, type CommandResult, type OutputName, startCommand } from "#sandbox";
import type { MethodParams, MethodResult } from "#schemas";
import type { Flushed } from "#workspaces/live-workspace.ts";
import { followWorkspace } from "./follow.ts";
import { Held } from "./held.ts";
import { checkTime } from "./time-limit.ts";
import { Workplace, type WorkplaceDeps } from "./workplace.ts";

type Params = MethodParams<"run.exec">;
type Result = MethodResult<"run.exec">;
type Listed = MethodResult<"run.list">["processes"][number];

const MAX_SUMMARY_CHARS = 120;

/** How a program's run is followed; without these its output comes at the end. */
export interface RunFollower {
  started(process_id: string): void;
  /** The program waits until it resolves. */
  output(stream: OutputName, data: string, seq: number, process_id: string): Promise<void>;
}

interface Program {
  readonly command: Command;
  readonly line: string;
  readonly kind: "exec" | "stream";
  full: boolean;
}

/** Programs that users run on their projects, one at a time or several. */
export class Programs {
  readonly #deps: WorkplaceDeps;
  readonly #held: Held<Program>;

  constructor(deps: WorkplaceDeps) {
    this.#deps = deps;
    this.#held = new Held({
      what: "program",
      perUser: deps.config.workbench.programsPerUser,
      hint: "Wait for one to end, or run.kill one of those that run.list shows.",
    });
  }

  /**
   * Run a program to its end. Who asked must own the project. When `signal` aborts it is ended; what it changed is
   * kept all the same.
   * @throws AppError those of workplaces and sandboxes; InvalidParams for a time that is not allowed.
   */
  async run(caller: Caller, params: Params, signal: AbortSignal, follower?: RunFollower): Promise<Result> {
    const most = this.#deps.config.run.timeoutMs;
    checkTime(params.timeout_ms, most, "For something that runs on, open a terminal.");
    const timeoutMs = params.timeout_ms ?? most;
    const release = this.#held.reserve(caller.user_id);
    let place: Workplace | undefined;
    try {
      place = await Workplace.open(this.#deps, caller, params, signal);
      return await this.#runIn(place, caller, { params, timeoutMs, signal, follower });
    } finally {
      await place?.close();
      release();
    }
  }

  /** @throws AppError NotFound. */
  async kill(user_id: string, { process_id, pid, signal }: MethodParams<"run.kill">): Promise<void> {
    const { command } = this.#held.find(user_id, process_id).value;
    if (pid !== undefined) await command.process.signalProcess(pid, signal ?? "SIGTERM");
    else await command.kill(signal === "SIGKILL" ? undefined : signal);
  }

  async list(user_id: string, project_id?: string): Promise<Listed[]> {
    return await Promise.all(
      this.#held.of(user_id, project_id).map(async ({ id, project_id: project, value }) => ({
        process_id: id,
        project_id: project ?? "",
        kind: value.kind,
        command: value.line,
        started_at: new Date(value.command.startedAt).toISOString(),
        ...(await inspect(value.command.process)),
      })),
    );
  }

  /** End everything of a project. */
  async endProject(project_id: string): Promise<void> {
    const theirs = this.#held.all().filter((entry) => entry.project_id === project_id);
    await Promise.all(theirs.map(({ value }) => value.command.kill()));
  }

  async close(): Promise<void> {
    await Promise.all(this.#held.all().map(({ value }) => value.command.kill().catch(() => undefined)));
  }

  async #runIn(
    place: Workplace,
    caller: Caller,
    run: { params: Params; timeoutMs: number; signal: AbortSignal; follower: RunFollower | undefined },
  ): Promise<Result> {
    const { params, timeoutMs, signal, follower } = run;
    const { workbench } = this.#deps.config;
    const line = [params.command, ...params.args].join(" ");
    let id = "";
    const command = await startCommand(
      this.#deps.sandboxes,
      { ...place.spec("program"), argv: [params.command, ...params.args] },
      {
        outputBytes: workbench.outputBytes,
        timeoutMs,
        signal,
        ...(params.stdin === undefined ? {} : { input: params.stdin }),
        ...(follower === undefined
          ? {}
          : {
              onOutput: (stream, chunk, seq) =>
                follower.output(stream, encode(chunk, params.encoding), seq + 1, id),
            }),
      },
    );
    id = command.id;
    const kind = follower === undefined ? "exec" : "stream";
    const program: Program = { command, line: line.slice(0, 1000), kind, full: false };
    this.#held.add({ id, user_id: caller.user_id, project_id: params.project_id, value: program });
    place.guardDisk(() => {
      program.full = true;
      command.kill().catch(() => undefined);
    });
    /** What became of changes while it ran. */
    let kept: Omit<Flushed, "warnings"> = {};
    const follow = {
      summary: summaryOf(line),
      log: this.#deps.log,
      onFlushed: ({ warnings: _, ...more }: Flushed) => {
        kept = { ...kept, ...more };
      },
    };
    let following: AsyncDisposable | undefined;
    try {
      follower?.started(id);
      // One that runs on sees what others change, and is not the only one to have what it made.
      if (follower !== undefined) following = await followWorkspace(place.use, follow);
      const result = await command.finished.catch((error: unknown) => this.#keepAnyway(place, line, error));
      await following?.[Symbol.asyncDispose]();
      const flushed = { ...kept, ...(await place.use.flush(summaryOf(line))) };
      return this.#outcome(place, program, { result, flushed, streamed: follower !== undefined, params });
    } catch (error) {
      // Where it could not be followed it would run on, with nobody to know of it.
      await command.kill().catch(() => undefined);
      throw error;
    } finally {
      await following?.[Symbol.asyncDispose]();
      this.#held.delete(id);
    }
  }

  /** The output could not be delivered, but what the program changed is there. */
  async #keepAnyway(place: Workplace, line: string, error: unknown): Promise<never> {
    await place.use.flush(summaryOf(line));
    throw error;
  }

  #outcome(
    place: Workplace,
    program: Program,
    end: { result: CommandResult; flushed: Flushed; streamed: boolean; params: Params },
  ): Result {
    const { result, flushed, streamed, params } = end;
    const { stdout, stderr, limit, ...rest } = orNotFound(result, params);
    const ended = program.full ? "disk" : limit;
    const { revision, change_id, warnings } = flushed;
    return {
      process_id: program.command.id,
      ...rest,
      stdout: streamed ? "" : encode(stdout, params.encoding),
      stderr: streamed ? "" : encode(stderr, params.encoding),
      truncated: result.truncated && !streamed,
      ...(ended === undefined ? {} : { limit: ended }),
      ...(revision === undefined ? {} : { revision }),
      ...(change_id === undefined ? {} : { change_id }),
      ...(warnings.length === 0 ? {} : { warnings: [...warnings] }),
      ...(place.refusedHosts.length === 0 ? {} : { refused_hosts: [...place.refusedHosts] }),
    };
  }
}

/** What the sandbox's own programs say when there is nothing to start. */
const NOT_STARTED =
  /^(bwrap: execvp|prlimit: failed to execute) .*: (No such file or directory|Not a directory)\s*$/;

/** A program that is not there is told as a shell would: code 127, and what to do. */
function orNotFound(result: CommandResult, { command, args }: Params): CommandResult {
  const { exit_code, stderr } = result;
  if ((exit_code !== 1 && exit_code !== 127) || !NOT_STARTED.test(stderr.toString("utf8"))) return result;
  const meant = args.length === 0 && /\s/.test(command);
  const hint = meant
    ? ` For a shell's syntax: "command": "sh", "args": ["-c", ${JSON.stringify(command)}].`
    : "";
  return { ...result, exit_code: 127, stderr: Buffer.from(`${command}: command not found.${hint}\n`) };
}

const summaryOf = (line: string) => `Run: ${line}`.slice(0, MAX_SUMMARY_CHARS);

const encode = (bytes: Buffer, encoding: "utf8" | "base64") => bytes.toString(encoding);

const STATES: Readonly<Record<string, Listed["processes"][number]["state"]>> = {
  R: "running",
  D: "waiting",
  T: "stopped",
  t: "stopped",
  Z: "ended",
  X: "ended",
};

/** What a sandbox uses, and every process in it; nothing of one that has just ended. */
export async function inspect(tree: Pick<Command["process"], "stats" | "processes">) {
  const [stats, processes] = await Promise.all([tree.stats(), tree.processes()]);
  return {
    memory_bytes: stats.memoryBytes,
    cpu_ms: Math.round(stats.cpuMs),
    processes: processes.map(({ pid, ppid, command, state, memoryBytes, cpuMs }) => ({
      pid,
      parent_pid: ppid,
      command: command.join(" "),
      state: STATES[state] ?? "sleeping",
      memory_bytes: memoryBytes,
      cpu_ms: Math.round(cpuMs),
    })),
  };
}
