import { type ChatWrapperSettings, LlamaChat, type LlamaModel, LlamaText, type Token } from "node-llama-cpp";
import type { FinishReason } from "../types.ts";
import type { ChatPrompt } from "./chat-prompt.ts";
import { ChoiceText } from "./choice-text.ts";
import { JsonEnd } from "./json-end.ts";
import type { ChoiceSink } from "./outbox.ts";
import { Ended, type Run } from "./run.ts";
import type { Slot } from "./slot.ts";

export interface ChatLimits {
  maxTokens: number;
  stop: readonly string[];
}

/**
 * One answer to a chat, by the library's own loop: it knows the formats of many models' tool calls and thoughts.
 * Counting, stop strings and where JSON ends are ours.
 * @throws Ended "cancelled"; anything the library throws.
 */
export async function generateChat(
  slot: Slot,
  run: Run,
  chat: ChatPrompt,
  sink: ChoiceSink,
  { maxTokens, stop }: ChatLimits,
): Promise<void> {
  const text = new ChoiceText(run, sink, { stop, json: chat.grammar !== undefined });
  const calls = new Calls(run, sink, chat, slot.sequence.model);
  const session = new LlamaChat({ contextSequence: slot.sequence, chatWrapper: chat.wrapper });
  try {
    const { metadata } = await session.generateResponse(structuredClone(chat.history), {
      maxTokens,
      repeatPenalty: false,
      contextShift: {
        // Asked for when the context is full: nothing is shifted out of it.
        size: () => {
          throw new Ended("length");
        },
      },
      onResponseChunk: (chunk) => {
        if (chunk.type === "segment") text.reasoning(chunk.text);
        else text.push(chunk.text, chunk.tokens);
      },
      ...(chat.functions === undefined
        ? { ...(chat.grammar === undefined ? {} : { grammar: chat.grammar }) }
        : {
            functions: chat.functions,
            documentFunctionParams: true,
            maxParallelFunctionCalls: chat.maxCalls,
            onFunctionCallParamsChunk: ({ callIndex, functionName, paramsChunk }) =>
              calls.push(callIndex, functionName, paramsChunk),
            onFunctionCall: ({ functionName }) => calls.made(functionName),
          }),
    });
    finish(text, sink, reasonOf(metadata.stopReason));
  } catch (error) {
    if (error instanceof Ended && error.reason !== "cancelled") return finish(text, sink, error.reason);
    // The library checks a call's arguments once more when they are complete; they are out by then.
    if (calls.complete && isValidationError(error)) return finish(text, sink, "tool_calls");
    throw error;
  } finally {
    session.dispose({ disposeSequence: false });
  }
}

function finish(text: ChoiceText, sink: ChoiceSink, reason: FinishReason): void {
  text.finish();
  sink.finish(reason);
}

function reasonOf(stopReason: string): FinishReason {
  if (stopReason === "maxTokens") return "length";
  return stopReason === "functionCalls" ? "tool_calls" : "stop";
}

function isValidationError(error: unknown): boolean {
  return (
    error instanceof Error && /^Llama(FunctionCall|JsonSchema)ValidationError$/.test(error.constructor.name)
  );
}

/** The tool calls of one choice on their way out. */
class Calls {
  readonly #run: Run;
  readonly #sink: ChoiceSink;
  readonly #max: number;
  readonly #model: LlamaModel;
  readonly #continuation: string | undefined;
  readonly #begun: JsonEnd[] = [];
  #made = 0;

  constructor(run: Run, sink: ChoiceSink, { maxCalls, wrapper }: ChatPrompt, model: LlamaModel) {
    this.#run = run;
    this.#sink = sink;
    this.#max = maxCalls;
    this.#model = model;
    this.#continuation = continuationOf(wrapper.settings);
  }

  /** Whether every call begun has all of its arguments. */
  get complete(): boolean {
    return this.#begun.length > 0 && this.#begun.every((json) => json.done);
  }

  push(index: number, name: string, piece: string): void {
    const known = this.#begun[index];
    const json = known ?? new JsonEnd();
    this.#begun[index] = json;
    const text = json.push(piece);
    if (known === undefined) this.#sink.call(index, name, text);
    else if (text !== "") this.#sink.call(index, undefined, text);
    // What comes after the last call's arguments is only its syntax: not worth generating.
    if (json.done && index + 1 >= this.#max) this.#run.end("tool_calls");
  }

  /** A call is complete; one of a function without parameters was never in pieces. */
  made(name: string): void {
    const index = this.#made++;
    if (this.#begun[index] === undefined) this.push(index, name, "{}");
    this.#run.onSampled = (token, isEnd) => {
      this.#run.onSampled = () => {};
      if (!isEnd && !this.#mayContinue(token)) this.#run.end("tool_calls");
    };
  }

  /** The library takes anything but an end for the beginning of one more call, and forces the model into it. */
  #mayContinue(token: Token): boolean {
    if (this.#continuation === undefined) return true;
    const text = compact(this.#model.detokenize([token], true));
    return this.#continuation.startsWith(text) || text.startsWith(this.#continuation);
  }
}

/** What stands between two calls and begins the next; undefined where the library can tell where the calls end. */
function continuationOf({ functions: { parallelism, call } }: ChatWrapperSettings): string | undefined {
  const end = LlamaText(parallelism?.call.sectionSuffix ?? "").toString();
  if (parallelism === undefined || end !== "") return undefined;
  return compact(LlamaText([parallelism.call.betweenCalls ?? "", call.prefix]).toString());
}

function compact(text: string): string {
  return text.replace(/\s/g, "");
}
