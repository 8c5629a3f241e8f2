import type { LlamaModel, Token } from "node-llama-cpp";
import type { CompletionGenerate, FinishReason } from "../types.ts";
import { ChoiceText } from "./choice-text.ts";
import { Detokenizer } from "./detokenizer.ts";
import { type Loaded, refuseHopeless, refuseTooLong } from "./loaded.ts";
import type { ChoiceSink } from "./outbox.ts";
import { invalid } from "./refusal.ts";
import { Ended, type Run } from "./run.ts";
import type { Slot } from "./slot.ts";

/**
 * The tokens to be continued. In a prompt of text, the names of special tokens stand for these: who writes a raw prompt
 * writes the model's own format.
 * @throws Refusal 400 naming what this model cannot do.
 */
export async function completionPrompt(loaded: Loaded, request: CompletionGenerate): Promise<Token[]> {
  const { model } = loaded;
  const texts = [request.prompt, request.suffix].filter((text) => typeof text === "string");
  await refuseHopeless(loaded, texts, "prompt");
  const given = tokensOf(loaded, request.prompt);
  const prompt =
    request.suffix === undefined || request.suffix === ""
      ? withBeginning(model, given, request.prompt)
      : infill(model, given, model.tokenize(request.suffix, false, "trimLeadingSpace"));
  refuseTooLong(loaded, prompt, "prompt");
  return prompt;
}

/** @throws Ended "cancelled"; anything the library throws. */
export async function generateCompletion(
  slot: Slot,
  run: Run,
  prompt: readonly Token[],
  sink: ChoiceSink,
  stop: readonly string[],
): Promise<void> {
  const { sequence } = slot;
  const text = new ChoiceText(run, sink, { stop, json: false });
  const detokenizer = new Detokenizer(sequence.model, prompt);
  let undelivered: Token[] = [];
  const finish = (reason: FinishReason) => {
    // Half a character is not shown, but its tokens were chosen.
    text.push("", undelivered);
    text.finish();
    sink.finish(reason);
  };
  try {
    run.check();
    // The last token is evaluated even when it is known: only that makes logits.
    await sequence.adaptStateToTokens(prompt.slice(0, -1), false);
    for await (const token of sequence.evaluate(prompt.slice(sequence.nextTokenIndex))) {
      if (sequence.model.isEogToken(token)) break;
      undelivered.push(token);
      const piece = detokenizer.push(token);
      if (piece === "") continue;
      text.push(piece, undelivered);
      undelivered = [];
    }
    finish("stop");
  } catch (error) {
    if (!(error instanceof Ended) || error.reason === "cancelled") throw error;
    finish(error.reason);
  }
}

function tokensOf({ model, info }: Loaded, prompt: string | readonly number[]): Token[] {
  if (typeof prompt === "string") return model.tokenize(prompt, true);
  const unknown = prompt.find((token) => !Number.isInteger(token) || token < 0 || token >= info.vocabulary);
  if (unknown === undefined) return [...prompt] as Token[];
  throw invalid(
    "prompt",
    `There is no token ${unknown}; this model has ${info.vocabulary}, from 0 on.`,
    "invalid_value",
  );
}

/** Token ids are taken as they are; text gets the token its model expects at the beginning. */
function withBeginning(model: LlamaModel, tokens: Token[], prompt: string | readonly number[]): Token[] {
  const { bos, eos, shouldPrependBosToken } = model.tokens;
  if (tokens.length === 0) {
    const beginning = bos ?? eos;
    if (beginning === null) throw invalid("prompt", "It is empty.", "invalid_value");
    return [beginning];
  }
  if (typeof prompt !== "string" || !shouldPrependBosToken || bos === null || tokens[0] === bos)
    return tokens;
  return [bos, ...tokens];
}

/** Fill in the middle: models without a token for the gap want the text after it first. */
function infill(model: LlamaModel, before: readonly Token[], after: readonly Token[]): Token[] {
  const { infill: marks, bos, shouldPrependBosToken } = model.tokens;
  if (marks.prefix === null || marks.suffix === null) {
    throw invalid("suffix", "This model cannot fill in the middle: its vocabulary has no tokens for it.");
  }
  const beginning = shouldPrependBosToken && bos !== null ? [bos] : [];
  if (marks.middle !== null) {
    return [...beginning, marks.prefix, ...before, marks.suffix, ...after, marks.middle];
  }
  return [...beginning, marks.suffix, ...after, marks.prefix, ...before];
}
