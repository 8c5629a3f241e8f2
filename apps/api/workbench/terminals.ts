import type { Caller } from "#platform/authenticate.ts";
import { newId } from "#platform/ids.ts";
import type { SandboxTerminal } from "#sandbox";
import type { MethodParams, MethodResult } from "#schemas";
import type { Connection } from "../handler.ts";
import { followWorkspace } from "./follow.ts";
import { Held } from "./held.ts";
import { inspect } from "./programs.ts";
import { TerminalSession } from "./terminal-session.ts";
import { Workplace, type WorkplaceDeps } from "./workplace.ts";

type Listed = MethodResult<"run.list">["processes"][number];

interface OpenTerminal {
  readonly session: TerminalSession;
  readonly terminal: SandboxTerminal;
  /** Settles when everything of it has been given back. */
  readonly ended: Promise<void>;
}

const SUMMARY = "Terminal";

/** The terminals of all users. */
export class Terminals {
  readonly #deps: WorkplaceDeps;
  readonly #held: Held<OpenTerminal>;

  constructor(deps: WorkplaceDeps) {
    this.#deps = deps;
    this.#held = new Held({
      what: "terminal",
      perUser: deps.config.workbench.terminalsPerUser,
      hint: "Close one of those that terminal.list shows.",
    });
  }

  /**
   * Open one; `connection` shows it once the caller has its id. Who asks must own the project.
   * @throws AppError those of workplaces and sandboxes.
   */
  async open(
    caller: Caller,
    params: MethodParams<"terminal.open">,
    connection: Connection,
    signal: AbortSignal,
  ): Promise<TerminalSession> {
    const release = this.#held.reserve(caller.user_id);
    let place: Workplace | undefined;
    try {
      place = await Workplace.open(this.#deps, caller, params, signal);
      const { columns, rows, command, args } = params;
      const terminal = await this.#deps.sandboxes.run.startTerminal(
        {
          ...place.spec("terminal"),
          size: { cols: columns, rows },
          ...(command === undefined ? {} : { argv: [command, ...args] }),
        },
        signal,
      );
      if (signal.aborted) {
        // Whoever asked has been told that it took too long.
        await terminal.kill();
        throw signal.reason;
      }
      const session = new TerminalSession({
        id: newId("terminal"),
        user_id: caller.user_id,
        project_id: params.project_id,
        command: [command ?? "shell", ...args].join(" "),
        terminal,
        size: { columns, rows },
        detachedMs: this.#deps.config.workbench.detachedMs,
      });
      const ended = this.#accompany(place, session, terminal).finally(release);
      const value = { session, terminal, ended };
      this.#held.add({ id: session.id, user_id: caller.user_id, project_id: params.project_id, value });
      connection.afterAnswer(() => session.attach(connection));
      return session;
    } catch (error) {
      await place?.close();
      release();
      throw error;
    }
  }

  /** @throws AppError NotFound. */
  find(user_id: string, terminal_id: string): TerminalSession {
    return this.#held.find(user_id, terminal_id).value.session;
  }

  /** End it and wait until everything of it is given back. @throws AppError NotFound. */
  async end(user_id: string, terminal_id: string): Promise<void> {
    const { session, ended } = this.#held.find(user_id, terminal_id).value;
    await session.kill();
    await ended;
  }

  /** Signal one process in it, or (without `pid`) what has its input, as Ctrl+C does. @throws AppError NotFound. */
  async signal(
    user_id: string,
    terminal_id: string,
    signal: NodeJS.Signals,
    pid: number | undefined,
  ): Promise<void> {
    const { terminal } = this.#held.find(user_id, terminal_id).value;
    if (pid === undefined) await terminal.signal(signal);
    else await terminal.signalProcess(pid, signal);
  }

  sessions(user_id: string, project_id?: string): TerminalSession[] {
    return this.#held.of(user_id, project_id).map(({ value }) => value.session);
  }

  async list(user_id: string, project_id?: string): Promise<Listed[]> {
    return await Promise.all(
      this.#held.of(user_id, project_id).map(async ({ id, value: { session, terminal } }) => {
        const { project_id: project, command, started_at } = session.view();
        const listed = {
          process_id: id,
          project_id: project,
          kind: "terminal" as const,
          command,
          started_at,
        };
        return { ...listed, ...(await inspect(terminal)) };
      }),
    );
  }

  async endProject(project_id: string): Promise<void> {
    await this.#end(this.#held.all().filter((entry) => entry.project_id === project_id));
  }

  async close(): Promise<void> {
    await this.#end(this.#held.all());
  }

  async #end(entries: readonly { value: OpenTerminal }[]): Promise<void> {
    await Promise.all(
      entries.map(async ({ value: { session, ended } }) => {
        await session.kill().catch(() => undefined);
        await ended;
      }),
    );
  }

  /** From its start to its end: files in step, limits kept, and all given back. Never rejects. */
  async #accompany(place: Workplace, session: TerminalSession, terminal: SandboxTerminal): Promise<void> {
    const { log } = this.#deps;
    const { use } = place;
    try {
      place.guardDisk(() => void session.kill("disk").catch(() => undefined));
      const following = await followWorkspace(use, {
        summary: SUMMARY,
        log,
        onFlushed: (flushed) => session.tellSaved(flushed, use.workspace.revision),
      });
      const exit = await terminal.exited;
      await session.drained;
      await following[Symbol.asyncDispose]();
      session.tellSaved(await use.flush(SUMMARY), use.workspace.revision);
      session.tellExit(exit);
    } catch (error) {
      log.error({ err: error }, "a terminal could not be followed to its end");
      await session.kill().catch(() => undefined);
    } finally {
      this.#held.delete(session.id);
      await place.close();
    }
  }
}
