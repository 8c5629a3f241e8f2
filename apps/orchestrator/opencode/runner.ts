import type { Agent } from "#agents";
import { AppError, type TaskError } from "#schemas";
import { AcpError } from "../acp/client.ts";
import type { BridgeRun } from "../bridge/bridge.ts";
import { finishFailure, runFailure } from "../run/failures.ts";
import type { RunningTask } from "../run/run-deps.ts";
import type { Runner, Session, SessionTask, Station, TurnEnd } from "../runners/runner.ts";
import { UpdateTranslator } from "./events.ts";
import { BRIDGE_URL, type OpencodeProcess } from "./process.ts";
import type { Lease, WarmPool } from "./warm-pool.ts";

/** The exit of a process is known a moment after its output has ended. */
const EXIT_MS = 1000;

interface OpencodeRunnerDeps {
  readonly pool: WarmPool;
  readonly maxOutputTokens: number;
}

/** Agents driven by the OpenCode CLI, in a process of the user's own per project. */
export class OpencodeRunner implements Runner {
  readonly #deps: OpencodeRunnerDeps;

  constructor(deps: OpencodeRunnerDeps) {
    this.#deps = deps;
  }

  async acquire(task: RunningTask, signal: AbortSignal, onWait: (ahead: number) => void): Promise<Station> {
    if (task.network.length > 0) {
      throw new AppError("InvalidParams", "OpenCode's sandbox has no network, and one was granted.", {
        hint: 'Dispatch the task with "runner": "native".',
      });
    }
    const key = `${task.user_id}/${task.project_id}`;
    const lease = await this.#deps.pool.acquire(key, signal, onWait, task.agent_config);
    const { requests, area, owner, slot } = lease.workplace;
    return {
      slot,
      place: { requests, area, owner },
      open: (agent, opening) => this.#open(lease, agent, opening),
      leaving: () => {
        if (!task.agent_config) lease.leaving();
      },
      // What the project brought may have set something up that waits for the next.
      release: (reusable) => lease.release(reusable && !task.agent_config),
    };
  }

  close(): Promise<void> {
    return this.#deps.pool.close();
  }

  async #open(lease: Lease, agent: Agent, signal: AbortSignal): Promise<Session> {
    const opencode = await lease.ready;
    await opencode.openSession(agent.name, signal);
    return new OpencodeSession(opencode, this.#deps.maxOutputTokens);
  }
}

class OpencodeSession implements Session {
  readonly #opencode: OpencodeProcess;
  readonly #maxOutputTokens: number;
  readonly #translator: UpdateTranslator;
  #task: SessionTask | undefined;
  #calls: BridgeRun | undefined;

  constructor(opencode: OpencodeProcess, maxOutputTokens: number) {
    this.#opencode = opencode;
    this.#maxOutputTokens = maxOutputTokens;
    this.#translator = new UpdateTranslator([
      [opencode.serverPassword, "[hidden]"],
      [BRIDGE_URL, "[model server]"],
    ]);
  }

  get toolRunning(): boolean {
    return this.#translator.toolRunning;
  }

  get modelAsked(): boolean {
    return (this.#calls?.openCalls ?? 0) > 0;
  }

  get dead(): boolean {
    return this.#opencode.dead;
  }

  begin(task: SessionTask): void {
    this.#task = task;
    this.#calls = this.#opencode.beginTask(task);
  }

  async turn(prompt: string, timeoutMs: number): Promise<TurnEnd> {
    const calls = this.#calls;
    if (calls === undefined) throw new Error("a turn before its task has begun");
    const onUpdate = (update: Record<string, unknown>) => {
      this.#task?.onActivity();
      const event = this.#translator.translate(update);
      if (event !== undefined) this.#task?.onEvent(event);
    };
    const stopReason = await this.#opencode.prompt({ text: prompt, timeoutMs, onUpdate });
    const failure = finishFailure(stopReason, calls, this.#maxOutputTokens);
    return { answer: this.#translator.answer, ...(failure === undefined ? {} : { failure }) };
  }

  cancel(): void {
    this.#opencode.cancel();
  }

  pauseOutput(pause: boolean): void {
    this.#opencode.pauseOutput(pause);
  }

  sweep(): Promise<number> {
    return this.#opencode.sweep();
  }

  end(): void {
    this.#opencode.endTask();
    this.#task = undefined;
  }

  /** The model call's own failure says more than what opencode made of it; and it may have died under us. */
  async explain(error: unknown, known: boolean): Promise<TaskError> {
    const told = known || error instanceof AcpError;
    const exit = told ? undefined : await this.#opencode.exitError(EXIT_MS);
    return runFailure(error, this.#calls, exit);
  }
}
