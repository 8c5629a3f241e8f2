import { AppError, type TaskEventBody } from "#schemas";
import { compact } from "../context/compact.ts";
import type { Tool, ToolHost } from "../tools/index.ts";
import { unlessAborted } from "./abort.ts";
import { Answer } from "./answer.ts";
import { CallRunner } from "./calls.ts";
import type { Message, Model, ModelCall, ModelUsage, ToolCall } from "./model.ts";
import { pathCleaner, toolEvent } from "./tool-events.ts";

/** Of the answer as it is kept; watchers have read all of it. */
const MAX_ANSWER_CHARS = 64 * 1024;

interface TurnLimits {
  /** Answers of the model. */
  readonly maxSteps: number;
  readonly maxOutputTokens: number;
  /** What the model gets to see of a tool's output, characters. */
  readonly toolOutputChars: number;
}

export interface TurnInput {
  readonly model: Model;
  /** What the agent may use, as `toolsFor` tells. */
  readonly tools: readonly Tool[];
  readonly host: ToolHost;
  /** The session so far, the prompt last. Grows by this turn, is compacted in place, and is always fit to go on. */
  readonly messages: Message[];
  readonly limits: TurnLimits;
  readonly temperature?: number;
  /** `maxTokens`: of the whole session, at which older parts of it are compacted. */
  readonly context: { readonly maxTokens: number };
  onEvent(event: TaskEventBody): void;
  /** Awaited before every question to the model and every call of a tool; nothing goes on until it resolves. */
  beforeStep?(): Promise<void>;
  readonly signal: AbortSignal;
}

interface TurnEnd {
  /** Only the first is what the agent meant to be its end. */
  readonly reason: "end_turn" | "length" | "content_filter" | "max_steps" | "doom_loop";
  /** The last thing it said. */
  readonly answer: string;
  /** Answers of the model. */
  readonly steps: number;
  /** Of all answers together; absent when the model told nothing. */
  readonly usage?: ModelUsage;
}

/**
 * Let the model work on the session's last message until it is done: ask, run the tools it calls, tell it what came of
 * them, and so on. @throws AppError of the model or of a host that does not work, what `signal` was aborted with;
 * the session is left fit to go on in every case.
 */
export function runTurn(input: TurnInput): Promise<TurnEnd> {
  return new Turn(input).run();
}

class Turn {
  readonly #input: TurnInput;
  readonly #calls: CallRunner;
  readonly #ids: Set<string>;
  readonly #clean: (text: string) => string;
  #answer = "";
  #steps = 0;
  #usage: ModelUsage | undefined;

  constructor(input: TurnInput) {
    this.#input = input;
    this.#calls = new CallRunner(input);
    this.#clean = pathCleaner(input.host.directory);
    this.#ids = new Set(input.messages.flatMap((message) => callsOf(message).map(({ id }) => id)));
  }

  async run(): Promise<TurnEnd> {
    const { limits } = this.#input;
    while (this.#steps < limits.maxSteps) {
      await this.#gate();
      const answer = await this.#ask();
      const calls = answer.calls();
      const cut = cutReason(answer.finish);
      const done = cut ?? (calls.length === 0 ? "end_turn" : undefined);
      this.#keep(answer, calls);
      if (cut !== undefined) this.#tellAll(calls, "Not run: your answer was cut off before it was complete.");
      if (done !== undefined) return this.#end(done);
      if (await this.#runAll(calls)) return this.#end("doom_loop");
    }
    return this.#end("max_steps");
  }

  /** One answer, told to watchers as it comes. */
  async #ask(): Promise<Answer> {
    const { model, signal, onEvent } = this.#input;
    this.#compact();
    const answer = new Answer((wanted) => this.#newId(wanted));
    const stream = model.stream(this.#call(), signal)[Symbol.asyncIterator]();
    try {
      for (;;) {
        const { done, value } = await unlessAborted(stream.next(), signal);
        if (done === true) break;
        const begun = answer.take(value);
        if (begun !== undefined) {
          onEvent(toolEvent({ call_id: begun.id, name: begun.name, status: "pending" }, this.#clean));
        } else if ((value.type === "text" || value.type === "thought") && value.text !== "") {
          onEvent({ type: value.type, delta: this.#clean(value.text) });
        }
      }
    } catch (error) {
      // Not waited for: one that hangs would hang us as well.
      stream.return?.().then(undefined, () => undefined);
      this.#drop(answer);
      throw error;
    }
    if (answer.finish === undefined) {
      this.#drop(answer);
      throw incomplete();
    }
    return answer;
  }

  #call(): ModelCall {
    const { tools, messages, limits, temperature } = this.#input;
    return {
      messages,
      tools: tools.map((tool) => tool.spec),
      maxOutputTokens: limits.maxOutputTokens,
      ...(temperature === undefined ? {} : { temperature }),
    };
  }

  #compact(): void {
    const { messages, context } = this.#input;
    const shorter = compact(messages, context.maxTokens);
    if (shorter !== messages) messages.splice(0, messages.length, ...shorter);
  }

  #keep(answer: Answer, calls: readonly ToolCall[]): void {
    const { text } = answer;
    this.#steps += 1;
    if (text.trim() !== "") this.#answer = this.#clean(text);
    const { usage } = answer;
    if (usage !== undefined) {
      this.#usage = {
        input_tokens: (this.#usage?.input_tokens ?? 0) + usage.input_tokens,
        output_tokens: (this.#usage?.output_tokens ?? 0) + usage.output_tokens,
      };
    }
    // A message of nothing at all is refused by many providers.
    if (text === "" && calls.length === 0) return;
    this.#input.messages.push({
      role: "assistant",
      content: text === "" ? null : text,
      ...(calls.length === 0 ? {} : { tool_calls: calls.map(validCall) }),
    });
  }

  /** Run an answer's calls in their order. @returns whether the model goes round in circles. */
  async #runAll(calls: readonly ToolCall[]): Promise<boolean> {
    const open = [...calls];
    try {
      for (let call = open[0]; call !== undefined; call = open[0]) {
        await this.#gate();
        const outcome = await this.#calls.run(call);
        this.#tell(call, outcome.output);
        open.shift();
        if (!outcome.circling) continue;
        this.#tellAll(open, "Not run: the same call was made again and again.");
        return true;
      }
      return false;
    } catch (error) {
      this.#tellAll(open, "Not finished: the run was ended.");
      throw error;
    }
  }

  /** Answer calls that are not run, for the model and for watchers. */
  #tellAll(calls: readonly ToolCall[], why: string): void {
    for (const call of calls) {
      this.#tell(call, why);
      this.#failed(call, why);
    }
  }

  #tell(call: ToolCall, content: string): void {
    this.#input.messages.push({ role: "tool", tool_call_id: call.id, content });
  }

  /** Calls of an answer that broke off never become part of the session. */
  #drop(answer: Answer): void {
    for (const call of answer.calls()) this.#failed(call, "Not run: the answer broke off.");
  }

  #failed({ id, function: { name } }: ToolCall, output: string): void {
    this.#input.onEvent(toolEvent({ call_id: id, name, status: "failed", output }, this.#clean));
  }

  #gate(): Promise<void> {
    const { beforeStep, signal } = this.#input;
    return unlessAborted(beforeStep?.() ?? Promise.resolve(), signal);
  }

  /** Some models number their calls anew in every answer. */
  #newId(wanted: string): string {
    const name = wanted === "" ? "call" : wanted.slice(0, 64);
    let id = wanted === "" || this.#ids.has(name) ? `${name}_${this.#ids.size + 1}` : name;
    while (this.#ids.has(id)) id += "_";
    this.#ids.add(id);
    return id;
  }

  #end(reason: TurnEnd["reason"]): TurnEnd {
    return {
      reason,
      answer: this.#answer.slice(0, MAX_ANSWER_CHARS),
      steps: this.#steps,
      ...(this.#usage === undefined ? {} : { usage: this.#usage }),
    };
  }
}

const callsOf = (message: Message) => (message.role === "assistant" ? (message.tool_calls ?? []) : []);

/** An answer that was ended by somebody else is none, and its calls may be half of what was meant. */
function cutReason(finish: string | undefined): "length" | "content_filter" | undefined {
  return finish === "length" || finish === "content_filter" ? finish : undefined;
}

/** What is no JSON object would make the whole session unreadable for the model's server. */
function validCall(call: ToolCall): ToolCall {
  return isObject(call.function.arguments)
    ? call
    : { ...call, function: { ...call.function, arguments: "{}" } };
}

function isObject(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value);
  } catch {
    return false;
  }
}

function incomplete(): AppError {
  return new AppError("ProviderError", "The model's answer ended before it was complete.", {
    hint: "The model's provider failed; dispatch the task again, or choose another model.",
  });
}
