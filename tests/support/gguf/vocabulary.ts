import { type Entry, i32s, text, texts } from "./file-format.ts";

/** What a token is, `tokenizer.ggml.token_type`. */
export const TOKEN_TYPE = { normal: 1, unknown: 2, control: 3, userDefined: 4, byte: 6 } as const;

export interface Vocabulary {
  readonly size: number;
  /** The part of the metadata that is about tokens. */
  readonly metadata: readonly Entry[];
  /** @throws Error when there is no such token. */
  id(token: string): number;
}

/** Tokens in the order of their ids. */
export class TokenList {
  readonly #texts: string[] = [];
  readonly #types: number[] = [];
  readonly #ids = new Map<string, number>();

  get size(): number {
    return this.#texts.length;
  }

  has(token: string): boolean {
    return this.#ids.has(token);
  }

  /** False when there already is one like it. */
  add(token: string, type: number = TOKEN_TYPE.normal): boolean {
    if (this.#ids.has(token)) return false;
    this.#ids.set(token, this.#texts.length);
    this.#texts.push(token);
    this.#types.push(type);
    return true;
  }

  /** @throws Error when there is no such token. */
  id(token: string): number {
    const id = this.#ids.get(token);
    if (id === undefined) throw new Error(`There is no token ${JSON.stringify(token)}.`);
    return id;
  }

  metadata(model: "gpt2" | "llama" | "bert", preTokenizer: string): Entry[] {
    return [
      ["tokenizer.ggml.model", text(model)],
      ["tokenizer.ggml.pre", text(preTokenizer)],
      ["tokenizer.ggml.tokens", texts(this.#texts)],
      ["tokenizer.ggml.token_type", i32s(this.#types)],
    ];
  }
}
