import { isObject } from "#platform/json.ts";
import { countTokens } from "./tokenizer.ts";

/** Tokens of one call, and who counted them. */
export interface Usage {
  input_tokens: number;
  output_tokens: number;
  cached_tokens: number;
  /** The provider's own figures, our tokenizer where it gave none, or the local model's own tokenizer. */
  counted_by: "provider" | "tokenizer" | "model";
}

/** Text kept to be counted; beyond it, counted at once (memory stays bounded). */
const KEEP = 262_144;
const MAX_COUNT = 2_147_483_647;
const MAX_CHOICES = 128;

type Json = Record<string, unknown>;

/**
 * What a provider said it used; undefined when it said nothing or nonsense. Vectors have no output: `noOutput` is what
 * is meant where nothing is said of it.
 */
export function readUsage(value: unknown, noOutput = false): Omit<Usage, "counted_by"> | undefined {
  if (!isObject(value)) return undefined;
  const { prompt_tokens: input, completion_tokens: output = noOutput ? 0 : undefined } = value;
  if (!isCount(input) || !isCount(output)) return undefined;
  const details = value.prompt_tokens_details;
  const cached = isObject(details) ? details.cached_tokens : value.prompt_cache_hit_tokens;
  return {
    input_tokens: input,
    output_tokens: output,
    cached_tokens: isCount(cached) ? Math.min(cached, input) : 0,
  };
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= MAX_COUNT;
}

/** Watches every event of one answer: what was said, whether it ended properly, what it cost. */
export class Tally {
  /** `[DONE]` came. */
  done = false;
  /** Bytes (UTF-16 units) of generated text seen. */
  characters = 0;
  #usage: Omit<Usage, "counted_by"> | undefined;
  /** Text generated since the last usage came; before that, since the beginning. */
  #pending: string[] = [];
  #pendingLength = 0;
  #counted = 0;
  readonly #open = new Map<number, boolean>();

  /** Every choice that began has ended with a reason. */
  get finished(): boolean {
    return this.#open.size > 0 && [...this.#open.values()].every((finished) => finished);
  }

  /** The answer is whole. */
  get complete(): boolean {
    return this.finished || (this.done && this.#open.size > 0);
  }

  /** The provider began to answer: from here on there is something to charge for. */
  get started(): boolean {
    return this.#open.size > 0 || this.#usage !== undefined;
  }

  /** The provider's figures cover everything seen. */
  get hasUsage(): boolean {
    return this.#usage !== undefined && this.#pendingLength === 0 && this.#counted === 0;
  }

  /** One chunk of a stream (`delta`), a whole answer (`message`, `text`) or a list of vectors (`data`). */
  take(event: Json): void {
    const { choices, data } = event;
    if (Array.isArray(choices)) for (const choice of choices) this.#takeChoice(choice);
    if (Array.isArray(data)) this.#open.set(0, true);
    const usage = readUsage(event.usage, Array.isArray(data));
    if (usage === undefined) return;
    this.#usage = usage;
    this.#pending = [];
    this.#pendingLength = 0;
    this.#counted = 0;
  }

  #takeChoice(choice: unknown): void {
    if (!isObject(choice)) return;
    const index = typeof choice.index === "number" ? choice.index : 0;
    if (this.#open.size < MAX_CHOICES || this.#open.has(index)) {
      const ended = typeof choice.finish_reason === "string" || this.#open.get(index) === true;
      this.#open.set(index, ended);
    }
    this.#add(choice.text);
    const part = isObject(choice.delta) ? choice.delta : choice.message;
    if (!isObject(part)) return;
    for (const name of ["content", "reasoning_content", "reasoning", "refusal"]) this.#add(part[name]);
    this.#addCall(part.function_call);
    if (Array.isArray(part.tool_calls)) {
      for (const call of part.tool_calls) this.#addCall(isObject(call) ? call.function : undefined);
    }
  }

  #addCall(call: unknown): void {
    if (!isObject(call)) return;
    this.#add(call.name);
    this.#add(call.arguments);
  }

  #add(text: unknown): void {
    if (typeof text !== "string" || text === "") return;
    this.characters += text.length;
    this.#pending.push(text);
    this.#pendingLength += text.length;
  }

  /** To be awaited now and then while a stream runs: keeps the text that is held within bounds. */
  async fold(): Promise<void> {
    if (this.#pendingLength < KEEP) return;
    this.#counted += await this.#countPending();
    this.#pending = [];
    this.#pendingLength = 0;
  }

  #countPending(): Promise<number> {
    return countTokens(this.#pending.join(""));
  }

  /**
   * The provider's figures where they cover everything it sent; else counted here: all of it, or what came
   * after the last figures of a stream that broke.
   */
  async usage(countInput: () => Promise<number>): Promise<Usage> {
    const told = this.#usage;
    if (told !== undefined && this.hasUsage) return { ...told, counted_by: "provider" };
    const rest = this.#counted + (await this.#countPending());
    return {
      input_tokens: told?.input_tokens ?? (await countInput()),
      // A sum beyond what can be recorded could never be settled: its call would cost nothing.
      output_tokens: Math.min(MAX_COUNT, (told?.output_tokens ?? 0) + rest),
      cached_tokens: told?.cached_tokens ?? 0,
      counted_by: "tokenizer",
    };
  }
}
