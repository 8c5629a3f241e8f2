import type { LlamaModel, Token } from "node-llama-cpp";

/** What stands for bytes that are no character (yet). */
const REPLACEMENT = "\u{fffd}";
/** A character has four bytes at the most, so four tokens: what is no character then never will be. */
const MAX_PENDING = 4;
/** Tokens before, which spacing depends on. */
const CONTEXT_TOKENS = 4;

/** Tokens to text, one after another; a character is given out once all of its bytes are there. */
export class Detokenizer {
  readonly #model: LlamaModel;
  readonly #before: Token[];
  #pending: Token[] = [];

  constructor(model: LlamaModel, before: readonly Token[]) {
    this.#model = model;
    this.#before = before.slice(-CONTEXT_TOKENS);
  }

  push(token: Token): string {
    this.#pending.push(token);
    const text = this.#model.detokenize(this.#pending, false, this.#before);
    if (text.endsWith(REPLACEMENT) && this.#pending.length < MAX_PENDING) return "";
    this.#before.push(...this.#pending);
    this.#before.splice(0, this.#before.length - CONTEXT_TOKENS);
    this.#pending = [];
    return text;
  }
}
