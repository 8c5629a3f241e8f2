import type { ChatWrapper, Llama, LlamaEmbeddingContext, LlamaModel, Token } from "node-llama-cpp";
import type { EngineInfo } from "../types.ts";
import { Refusal } from "./refusal.ts";
import type { Slots } from "./slots.ts";

/** A model in memory and what its requests share. */
export interface Loaded {
  readonly llama: Llama;
  readonly model: LlamaModel;
  readonly info: EngineInfo;
  /** For requests that name none. */
  readonly temperature: number | undefined;
  readonly embedding: LlamaEmbeddingContext | undefined;
  readonly generation: Generation | undefined;
}

/** Of a model that writes text. */
export interface Generation {
  readonly slots: Slots;
  readonly wrapper: ChatWrapper;
  readonly logprobs: boolean;
}

/** Characters a tokenizer takes some 70 ms for, while nothing else happens in this process. */
const SLICE = 64 * 1024;

/**
 * Refuse a prompt that is beyond hope before all of it is tokenized: a megabyte takes a second, in which every answer of
 * this model would stand still.
 * @param texts in any order; pieces are counted on their own, so a few tokens more than in the whole may come out.
 */
export async function refuseHopeless(
  { model, info }: Pick<Loaded, "model" | "info">,
  texts: readonly string[],
  param: string,
): Promise<void> {
  const total = texts.reduce((sum, text) => sum + text.length, 0);
  if (total <= SLICE) return;
  let tokens = 0;
  let slices = 0;
  for (const text of texts) {
    for (let at = 0; at < text.length; at += SLICE) {
      tokens += model.tokenize(text.slice(at, at + SLICE)).length;
      slices++;
      if (tokens - 2 * slices > 2 * info.context_size)
        throw tooLong(info.context_size, tokens, param, "more than");
      await new Promise(setImmediate);
    }
  }
}

/** @throws Refusal 400 unless the prompt and one token more fit. */
export function refuseTooLong({ info }: Pick<Loaded, "info">, prompt: readonly Token[], param: string): void {
  if (prompt.length + 1 > info.context_size) throw tooLong(info.context_size, prompt.length, param);
}

function tooLong(contextSize: number, tokens: number, param: string, about?: string): Refusal {
  const counted = about === undefined ? tokens : `${about} ${2 * contextSize}`;
  return new Refusal({
    status: 400,
    message:
      `This model's maximum context length is ${contextSize} tokens, prompt and answer together. ` +
      `Your ${param} came to ${counted} tokens. Please shorten it, or have the model loaded with a larger context_size.`,
    code: "context_length_exceeded",
    param,
  });
}
