import type { LlamaContextSequence, Token } from "node-llama-cpp";
import type { TokenLogprob } from "../types.ts";
import type { Run } from "./run.ts";
import { tokenBytes } from "./token-bytes.ts";

/** [chosen token, probabilities, confidence, logits as token, value, token, value ..., sum of exp(logit - highest)] */
type Sampled = [
  token: number,
  probabilities: unknown,
  confidence: unknown,
  logits: number[],
  totalWeight: number,
];

interface NativeSampler {
  applyConfig(config: { temperature: number }): void;
}

type LogitMapper = (logitIndex: number, tokenIndex: number) => unknown;

/** The few private members of node-llama-cpp 3.22.1 that are needed; each is looked for before it is used. */
interface Internals {
  _decodeTokens?: (...args: unknown[]) => Promise<unknown>;
  context: {
    _ctx?: { sampleToken?: (...args: unknown[]) => Promise<Sampled> };
  };
  model: {
    _model?: unknown;
    _llama?: { _bindings?: { AddonSampler?: new (model: unknown) => NativeSampler } };
  };
}

/** Position of the mapper that makes a token of a batch's logits, among the arguments of `_decodeTokens`. */
const MAPPER = 5;

export interface RawLogits {
  readonly installed: true;
}

/**
 * Looks at the model's own distribution, after each token was chosen and before temperature, truncation, penalties,
 * biases and grammars, while the logits of that step are still there. The library's public way needs a sampler of its
 * own for it, without grammars and with the same random number for every token, or gives what is left after truncation.
 * @returns undefined where this version of the library has no such place.
 */
export function rawLogitsOf(
  sequence: LlamaContextSequence,
  currentRun: () => Run | undefined,
): RawLogits | undefined {
  const internals = sequence as unknown as Internals;
  const Sampler = internals.model._llama?._bindings?.AddonSampler;
  const decode = internals._decodeTokens;
  const native = internals.context._ctx;
  if (Sampler === undefined || typeof decode !== "function" || decode.length <= MAPPER) return undefined;
  if (typeof native?.sampleToken !== "function") return undefined;
  const look = native.sampleToken.bind(native);
  let sampler: NativeSampler | undefined;
  internals._decodeTokens = async (...args: unknown[]) => {
    const run = currentRun();
    const choose = args[MAPPER] as LogitMapper;
    if (run?.logprobs === undefined) return decode.apply(sequence, args);
    const alternatives = run.logprobs;
    args[MAPPER] = async (logitIndex: number, tokenIndex: number) => {
      const chosen = await choose(logitIndex, tokenIndex);
      if (typeof chosen !== "number" || chosen < 0) return chosen;
      sampler ??= new Sampler(internals.model._model);
      sampler.applyConfig({ temperature: 0 });
      // Filter: these tokens, highest, lowest, the greedy choice, this many of the top (1 at least: it is the reference).
      const filter = [[chosen], false, false, false, Math.max(1, alternatives)];
      const [, , , logits, totalWeight] = await look(logitIndex, sampler, false, false, filter, true);
      run.tokenLogprobs.push({
        token: chosen as Token,
        logprob: toLogprob(sequence, chosen, alternatives, logits, totalWeight),
      });
      return chosen;
    };
    return decode.apply(sequence, args);
  };
  return { installed: true };
}

function toLogprob(
  { model }: LlamaContextSequence,
  chosen: number,
  alternatives: number,
  pairs: readonly number[],
  totalWeight: number,
): TokenLogprob {
  const logits = new Map<number, number>();
  for (let i = 0; i + 1 < pairs.length; i += 2) logits.set(Number(pairs[i]), Number(pairs[i + 1]));
  const highest = Math.max(...logits.values());
  const logprob = (token: number) =>
    Math.min(0, (logits.get(token) ?? Number.NEGATIVE_INFINITY) - highest - Math.log(totalWeight));
  const described = (token: number) => {
    const bytes = tokenBytes(model, token);
    return { token: Buffer.from(bytes).toString("utf8"), bytes, logprob: logprob(token) };
  };
  const top = [...logits.keys()].sort((a, b) => (logits.get(b) ?? 0) - (logits.get(a) ?? 0));
  return { ...described(chosen), top: top.slice(0, alternatives).map(described) };
}
