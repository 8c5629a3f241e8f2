import { randomBert } from "./bert.ts";
import { bpeVocabulary } from "./bpe-vocabulary.ts";
import { type ModelFile, type Written, writeGguf } from "./file-format.ts";
import { type LlamaShape, randomLlama } from "./llama.ts";
import { scriptedModel } from "./scripted.ts";
import { spmVocabulary } from "./spm-vocabulary.ts";
import { wordPieceVocabulary } from "./wordpiece-vocabulary.ts";
import { WORDS } from "./words.ts";

/** Types a model's matrices can have. */
export const MODEL_TYPES = ["f16", "q8_0", "q4_0"] as const;

export interface ModelOptions {
  /** Of the random weights: other ones for another seed. "1" unless told. */
  seed?: string;
  /** `tiny-*` are f16, `llama-*` q4_0 unless told. `tiny-scripted` is f16 always. */
  type?: (typeof MODEL_TYPES)[number];
}

type Define = (name: string, options: ModelOptions) => ModelFile;

const TINY: LlamaShape = {
  ...{ layers: 2, embedding: 128, heads: 4, keyValueHeads: 2, feedForward: 256 },
  ...{ contextLength: 2048, ropeBase: 10_000, tied: false },
};

/** Each model under the name it is asked for by. */
const MODELS = {
  "tiny-bpe": (name, { seed = "1", type = "f16" }) => {
    const words = WORDS.flatMap((word) => [word, ` ${word}`]);
    return randomLlama({ name, seed, type, shape: TINY, vocabulary: bpeVocabulary({ words }) });
  },
  "tiny-spm": (name, { seed = "1", type = "f16" }) =>
    randomLlama({ name, seed, type, shape: TINY, vocabulary: spmVocabulary(WORDS) }),
  "tiny-bert": (name, { seed = "1", type = "f16" }) =>
    randomBert({
      ...{ name, seed, type, vocabulary: wordPieceVocabulary(WORDS) },
      ...{ layers: 2, embedding: 128, heads: 4, feedForward: 256, contextLength: 512 },
    }),
  "tiny-scripted": (name, { type = "f16" }) => {
    if (type !== "f16") throw new RangeError(`${name}: its weights are computed for f16, not for ${type}`);
    return scriptedModel(name);
  },
  // As Qwen2.5-0.5B.
  "llama-0.5b": large(151_936, {
    ...{ layers: 24, embedding: 896, heads: 14, keyValueHeads: 2, feedForward: 4864 },
    ...{ contextLength: 32_768, ropeBase: 1_000_000, tied: true },
  }),
  // As Llama 3.2 1B.
  "llama-1b": large(128_256, {
    ...{ layers: 16, embedding: 2048, heads: 32, keyValueHeads: 8, feedForward: 8192 },
    ...{ contextLength: 131_072, ropeBase: 500_000, tied: true },
  }),
  // As Llama 3.2 3B.
  "llama-3b": large(128_256, {
    ...{ layers: 28, embedding: 3072, heads: 24, keyValueHeads: 8, feedForward: 8192 },
    ...{ contextLength: 131_072, ropeBase: 500_000, tied: true },
  }),
} satisfies Record<string, Define>;

export type ModelName = keyof typeof MODELS;

export const MODEL_NAMES = Object.keys(MODELS) as readonly ModelName[];

/** A model that could be written: what tests change to break it. */
export function defineModel(name: ModelName, options: ModelOptions = {}): ModelFile {
  return MODELS[name](name, options);
}

/**
 * Write a model's GGUF file: the same bytes for the same name and options on every machine.
 * @returns size in bytes, hash of the file and how many numbers the model consists of.
 * @throws RangeError for a type the model does not have; anything of the file system.
 */
export function writeModel(name: ModelName, path: string, options: ModelOptions = {}): Written {
  return writeGguf(path, defineModel(name, options));
}

/** As large and as slow as a real one: for measuring. */
function large(vocabularySize: number, shape: LlamaShape): Define {
  return (name, { seed = "1", type = "q4_0" }) => {
    const words = WORDS.flatMap((word) => [word, ` ${word}`]);
    const vocabulary = bpeVocabulary({ words, fill: { size: vocabularySize, seed } });
    return randomLlama({ name, seed, type, shape, vocabulary });
  };
}
