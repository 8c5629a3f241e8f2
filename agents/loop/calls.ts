import { AppError, type ErrorCode, type TaskEventBody } from "#schemas";
import {
  tools as allTools,
  type PreparedCall,
  type Tool,
  ToolFailure,
  type ToolHost,
} from "../tools/index.ts";
import { shorten } from "../tools/text.ts";
import { unlessAborted } from "./abort.ts";
import { CircleGuard } from "./doom.ts";
import type { ToolCall } from "./model.ts";
import { pathCleaner, type ToolMoment, toolEvent } from "./tool-events.ts";

/** Failures of a host that the model can do something about; every other one ends the turn. */
const TOLD: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "InvalidParams",
  "NotFound",
  "Forbidden",
  "Conflict",
  "PayloadTooLarge",
  "QuotaExceeded",
  "RateLimited",
  "Timeout",
  "RunFailed",
]);
const MAX_QUOTED_CHARS = 200;

export interface CallRunnerOptions {
  readonly tools: readonly Tool[];
  readonly host: ToolHost;
  readonly limits: { readonly toolOutputChars: number };
  onEvent(event: TaskEventBody): void;
  readonly signal: AbortSignal;
}

export interface CallOutcome {
  /** What the model is told. */
  readonly output: string;
  /** Whether it has made this call with this outcome again and again. */
  readonly circling: boolean;
}

/** Runs a turn's calls one after the other. */
export class CallRunner {
  readonly #options: CallRunnerOptions;
  readonly #circles = new CircleGuard();

  constructor(options: CallRunnerOptions) {
    this.#options = options;
  }

  /**
   * Run one call and tell watchers of it. What is wrong with the call is told to the model.
   * @throws AppError of a host that does not work, what the signal was aborted with; watchers are then not told yet.
   */
  async run(call: ToolCall): Promise<CallOutcome> {
    const { name } = call.function;
    let prepared: PreparedCall | undefined;
    let status: "completed" | "failed" = "completed";
    let output: string;
    try {
      prepared = this.#prepare(call);
      this.#tell(call, { status: "running", input: prepared.input });
      output = await this.#run(prepared);
    } catch (error) {
      status = "failed";
      output = this.#told(error);
    }
    output = shorten(output, this.#options.limits.toolOutputChars);
    const known = prepared === undefined ? {} : { title: prepared.title, input: prepared.input };
    this.#tell(call, { status, output, ...known });
    return { output, circling: this.#circles.add(`${name} ${call.function.arguments}`, output) };
  }

  #prepare({ function: { name, arguments: text } }: ToolCall): PreparedCall {
    const { tools, host } = this.#options;
    const tool = tools.find((one) => one.name === name);
    if (tool === undefined) throw new ToolFailure(unknownTool(name, tools));
    let fields: unknown;
    try {
      // Some models write nothing at all where a tool needs nothing.
      fields = text.trim() === "" ? {} : JSON.parse(text);
    } catch {
      const start = text.slice(0, MAX_QUOTED_CHARS);
      throw new ToolFailure(`The arguments of ${name} are no JSON: ${start}. Call it again with valid JSON.`);
    }
    return tool.prepare(fields, host.directory);
  }

  #run(prepared: PreparedCall): Promise<string> {
    const { host, signal, limits } = this.#options;
    return unlessAborted(prepared.run({ host, signal, outputChars: limits.toolOutputChars }), signal);
  }

  /** What the model is told of a failure. @throws the error when it is none of its business. */
  #told(error: unknown): string {
    this.#options.signal.throwIfAborted();
    if (error instanceof ToolFailure) return error.message;
    if (!(error instanceof AppError) || !TOLD.has(error.code)) throw error;
    const { hint } = error.details;
    return hint === undefined ? error.message : `${error.message} ${hint}`;
  }

  #tell(call: ToolCall, moment: Omit<ToolMoment, "call_id" | "name">): void {
    const { onEvent, host } = this.#options;
    const named = { call_id: call.id, name: call.function.name, ...moment };
    onEvent(toolEvent(named, pathCleaner(host.directory)));
  }
}

function unknownTool(name: string, tools: readonly Tool[]): string {
  if (allTools.some((tool) => tool.name === name)) return "Not allowed for this agent.";
  const names = tools.map((tool) => tool.name).join(", ");
  return `There is no tool ${name.slice(0, MAX_QUOTED_CHARS)}. ${names === "" ? "There are none." : `There are: ${names}.`}`;
}
