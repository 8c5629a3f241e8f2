import { randomInt } from "node:crypto";
import { type LlamaModel, type SequenceEvaluateOptions, type Token, TokenBias } from "node-llama-cpp";
import type { Sampling } from "../types.ts";
import type { Loaded } from "./loaded.ts";
import { invalid } from "./refusal.ts";

/** Where neither the request nor the model's options name one: OpenAI's. */
const DEFAULT_TEMPERATURE = 1;
/**
 * Where a request does not say: llama.cpp sorts the whole vocabulary otherwise, which for 128,000 tokens takes a third of
 * the time (1B, measured: 16 tokens/s against 24.4; with 1000, 23.5). What a trained model gives to the rest is next to
 * nothing.
 */
const DEFAULT_TOP_K = 256;
/** llama.cpp takes this very seed for "choose one yourself". */
const SEEDS = 0xff_ff_ff_ff;
/** Tokens the penalties look back at; what is further back than a context has been left long ago. */
const PENALTY_WINDOW = 4096;

export interface SamplingOptions {
  readonly seed: number;
  /** For one evaluation; `sampled` so far and the prompt are looked at when each token is chosen. */
  evaluation(text: { prompt: readonly Token[]; output: readonly Token[] }): SequenceEvaluateOptions;
}

/**
 * OpenAI's sampling parameters in llama.cpp's words.
 *
 * - `frequency_penalty` and `presence_penalty` lower a token's logit by count times the one plus the other, as OpenAI
 *   documents it, looking at the answer only.
 * - `repetition_penalty` divides a positive logit and multiplies a negative one, as Hugging Face defines it, looking at
 *   prompt and answer; together with one of the others at the answer only, for llama.cpp has one list for all three.
 * - `top_k` is 256 unless asked for (0 = all), `top_p` 1, `min_p` 0: the model's own distribution but for its far end.
 * - `seed` makes an answer repeatable by a model that is otherwise idle. In company the sums of a batch are made in another
 *   order, so their last digits differ, and with them, where two words are nearly equally likely, the answer.
 * - `logit_bias` is added to logits before everything else. -100 and 100 are not special: they only win practically always.
 *   The token that ends an answer cannot be biased, the library does not let it.
 * @throws Refusal 400 for a token the model does not have.
 */
export function samplingFor(
  sampling: Sampling,
  choice: number,
  { model, info, temperature }: Pick<Loaded, "model" | "info" | "temperature">,
): SamplingOptions {
  const seed = sampling.seed === undefined ? randomInt(SEEDS) : seedOf(sampling.seed, choice);
  const tokenBias = biasOf(sampling.logit_bias, model, info.vocabulary);
  const fixed: SequenceEvaluateOptions = {
    temperature: sampling.temperature ?? temperature ?? DEFAULT_TEMPERATURE,
    topK: sampling.top_k ?? DEFAULT_TOP_K,
    topP: sampling.top_p ?? 1,
    minP: sampling.min_p ?? 0,
    ...(tokenBias === undefined ? {} : { tokenBias }),
  };
  return {
    seed,
    evaluation: (text) => ({
      ...fixed,
      // A tool call is several evaluations, each with a sampler that starts anew: not with the same random numbers.
      seed: (seed + text.output.length) % SEEDS,
      ...penaltiesOf(sampling, text),
    }),
  };
}

function seedOf(seed: number, choice: number): number {
  return (((seed + choice) % SEEDS) + SEEDS) % SEEDS;
}

function penaltiesOf(
  { frequency_penalty = 0, presence_penalty = 0, repetition_penalty = 1 }: Sampling,
  { prompt, output }: { prompt: readonly Token[]; output: readonly Token[] },
): SequenceEvaluateOptions {
  const ofAnswer = frequency_penalty !== 0 || presence_penalty !== 0;
  if (!ofAnswer && repetition_penalty === 1) return {};
  return {
    repeatPenalty: {
      punishTokens: () => {
        const recent = output.slice(-PENALTY_WINDOW);
        const before = ofAnswer ? [] : prompt.slice(-PENALTY_WINDOW);
        return [...before, ...recent].slice(-PENALTY_WINDOW);
      },
      maxPunishTokens: PENALTY_WINDOW,
      penalty: repetition_penalty,
      frequencyPenalty: frequency_penalty,
      presencePenalty: presence_penalty,
    },
  };
}

function biasOf(
  biases: Record<string, number> | undefined,
  model: LlamaModel,
  vocabulary: number,
): TokenBias | undefined {
  const entries = Object.entries(biases ?? {});
  if (entries.length === 0) return undefined;
  const bias = TokenBias.for(model);
  for (const [id, logit] of entries) {
    const token = Number(id);
    if (!Number.isInteger(token) || token < 0 || token >= vocabulary) {
      throw invalid("logit_bias", `There is no token ${id}; this model has ${vocabulary}, from 0 on.`);
    }
    bias.set(token as Token, { logit });
  }
  return bias;
}
