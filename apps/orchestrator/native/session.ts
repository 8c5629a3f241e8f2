import type { Dispatcher } from "undici";
import type { Agent } from "#agents";
import { type Message, runTurn } from "#agents/loop/index.ts";
import { type Tool, toolsFor } from "#agents/tools/index.ts";
import type { Config } from "#platform/config/config.ts";
import type { Log } from "#platform/log.ts";
import { AppError, type TaskError, type TaskEventBody } from "#schemas";
import { endFailure, runFailure } from "../run/failures.ts";
import { PauseGate } from "../run/pause-gate.ts";
import type { Session, SessionTask, TurnEnd } from "../runners/runner.ts";
import { ModelClient } from "./model-client.ts";
import type { SandboxToolHost } from "./tool-host.ts";

/** What the model gets to see of a tool's output, characters. */
const TOOL_OUTPUT_CHARS = 32 * 1024;

export interface NativeSessionDeps {
  readonly config: Config;
  readonly log: Log;
  /** The model server's OpenAI base, with `/v1`. */
  readonly llmUrl: string;
  readonly dispatcher: Dispatcher;
  /** What its tools work on. */
  readonly host: SandboxToolHost;
}

/** One agent in our own loop: its conversation, kept in memory from turn to turn. */
export class NativeSession implements Session {
  readonly dead = false;
  readonly #deps: NativeSessionDeps;
  readonly #agent: Agent;
  readonly #tools: readonly Tool[];
  readonly #messages: Message[];
  readonly #running = new Set<string>();
  readonly #output = new PauseGate(() => undefined);
  #task: SessionTask | undefined;
  #model: ModelClient | undefined;
  #modelAsked = false;
  #stop = new AbortController();

  constructor(deps: NativeSessionDeps, agent: Agent) {
    this.#deps = deps;
    this.#agent = agent;
    this.#tools = toolsFor(agent.setup.permission);
    this.#messages = [{ role: "system", content: agent.setup.prompt }];
  }

  get toolRunning(): boolean {
    return this.#running.size > 0;
  }

  get modelAsked(): boolean {
    return this.#modelAsked && !this.toolRunning;
  }

  begin(task: SessionTask): void {
    const { config, log, llmUrl, dispatcher } = this.#deps;
    const { maxModelCalls, maxOutputTokens, timeoutMs } = config.run;
    const { token, model, onActivity } = task;
    const limits = { maxModelCalls, maxOutputTokens, timeoutMs };
    this.#task = task;
    this.#model = new ModelClient({ ...limits, llmUrl, dispatcher, token, model, onActivity, log });
  }

  async turn(prompt: string, timeoutMs: number): Promise<TurnEnd> {
    const [task, model] = [this.#task, this.#model];
    if (task === undefined || model === undefined) throw new Error("a turn before its task has begun");
    const { config, host } = this.#deps;
    const { maxOutputTokens, maxModelCalls: maxSteps } = config.run;
    const { context, setup } = this.#agent;
    this.#messages.push({ role: "user", content: prompt });
    this.#modelAsked = true;
    try {
      const signal = AbortSignal.any([this.#stop.signal, AbortSignal.timeout(timeoutMs)]);
      const { reason, answer } = await runTurn({
        model,
        tools: this.#tools,
        host,
        messages: this.#messages,
        limits: { maxSteps, maxOutputTokens, toolOutputChars: TOOL_OUTPUT_CHARS },
        ...(setup.temperature === undefined ? {} : { temperature: setup.temperature }),
        context,
        onEvent: (event) => this.#onEvent(task, event),
        beforeStep: async () => {
          await this.#output.pass(signal);
          await task.gate();
        },
        signal,
      });
      const failure = reason === "end_turn" ? undefined : endFailure(reason, maxOutputTokens);
      return { answer, ...(failure === undefined ? {} : { failure }) };
    } finally {
      this.#modelAsked = false;
      this.#running.clear();
    }
  }

  cancel(): void {
    this.#stop.abort(new AppError("Cancelled", "The turn was cancelled."));
  }

  pauseOutput(pause: boolean): void {
    this.#output.set(pause);
  }

  /** A command ends with everything it started before its tool answers; one that was broken off takes a moment. */
  async sweep(): Promise<number> {
    await this.#deps.host.idle();
    return 0;
  }

  end(): void {
    this.cancel();
    this.#task = undefined;
  }

  async explain(error: unknown): Promise<TaskError> {
    return runFailure(error, this.#model, undefined);
  }

  #onEvent(task: SessionTask, event: TaskEventBody): void {
    task.onActivity();
    if (event.type === "tool") {
      if (event.status === "running") this.#running.add(event.call_id);
      else this.#running.delete(event.call_id);
    }
    // What comes after the end belongs to nobody's log.
    if (this.#task === task) task.onEvent(event);
  }
}
