import { type Entry, f32, type ModelFile, text, u32 } from "./file-format.ts";
import { LAYOUTS, type TensorType } from "./tensor-types.ts";
import { ones, random, type Tensor } from "./tensors.ts";
import type { Vocabulary } from "./vocabulary.ts";

/** The measures of a model of the llama architecture. */
export interface LlamaShape {
  layers: number;
  /** Length of the vector that stands for a token. */
  embedding: number;
  heads: number;
  /** Heads that keys and values have; several heads may share one. */
  keyValueHeads: number;
  feedForward: number;
  contextLength: number;
  ropeBase: number;
  /** The output matrix is the input's, turned round. */
  tied: boolean;
}

const NORM_EPSILON = 1e-5;
/** `general.quantization_version`: how ggml's quantised blocks are laid out. */
const QUANTISATION = 2;

export function llamaMetadata(
  name: string,
  shape: LlamaShape,
  type: TensorType,
  vocabulary: Vocabulary,
): Entry[] {
  return [
    ["general.architecture", text("llama")],
    ["general.name", text(name)],
    ["general.file_type", u32(LAYOUTS[type].fileType)],
    ["general.quantization_version", u32(QUANTISATION)],
    ["llama.vocab_size", u32(vocabulary.size)],
    ["llama.context_length", u32(shape.contextLength)],
    ["llama.embedding_length", u32(shape.embedding)],
    ["llama.block_count", u32(shape.layers)],
    ["llama.feed_forward_length", u32(shape.feedForward)],
    ["llama.attention.head_count", u32(shape.heads)],
    ["llama.attention.head_count_kv", u32(shape.keyValueHeads)],
    ["llama.attention.layer_norm_rms_epsilon", f32(NORM_EPSILON)],
    ["llama.rope.dimension_count", u32(shape.embedding / shape.heads)],
    ["llama.rope.freq_base", f32(shape.ropeBase)],
    ...vocabulary.metadata,
  ];
}

interface RandomLlama {
  name: string;
  seed: string;
  shape: LlamaShape;
  type: TensorType;
  vocabulary: Vocabulary;
}

/** Random weights in the magnitude of trained ones: numbers stay finite, and what it says means nothing. */
export function randomLlama({ name, seed, shape, type, vocabulary }: RandomLlama): ModelFile {
  const { embedding } = shape;
  const matrix = (tensor: string, inputs: number, outputs: number, deviation: number) =>
    random(seed, { name: `${tensor}.weight`, shape: [inputs, outputs], type, deviation });
  const tensors: Tensor[] = [
    matrix("token_embd", embedding, vocabulary.size, 1),
    ones("output_norm.weight", embedding),
  ];
  if (!shape.tied) tensors.push(matrix("output", embedding, vocabulary.size, 3 / Math.sqrt(embedding)));
  for (let layer = 0; layer < shape.layers; layer++) tensors.push(...blockOf(shape, `blk.${layer}`, matrix));
  return { metadata: llamaMetadata(name, shape, type, vocabulary), tensors };
}

type Matrix = (tensor: string, inputs: number, outputs: number, deviation: number) => Tensor;

function blockOf(
  { embedding, heads, keyValueHeads, feedForward }: LlamaShape,
  block: string,
  matrix: Matrix,
): Tensor[] {
  const keys = (embedding / heads) * keyValueHeads;
  const unit = 1 / Math.sqrt(embedding);
  return [
    ones(`${block}.attn_norm.weight`, embedding),
    matrix(`${block}.attn_q`, embedding, embedding, unit),
    matrix(`${block}.attn_k`, embedding, keys, unit),
    matrix(`${block}.attn_v`, embedding, keys, unit),
    matrix(`${block}.attn_output`, embedding, embedding, unit / 2),
    ones(`${block}.ffn_norm.weight`, embedding),
    matrix(`${block}.ffn_gate`, embedding, feedForward, unit),
    matrix(`${block}.ffn_up`, embedding, feedForward, unit),
    matrix(`${block}.ffn_down`, feedForward, embedding, 0.5 / Math.sqrt(feedForward)),
  ];
}
