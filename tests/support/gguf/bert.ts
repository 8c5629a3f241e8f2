import { boolean, f32, type ModelFile, text, u32 } from "./file-format.ts";
import { LAYOUTS, type TensorType } from "./tensor-types.ts";
import { ones, random, type Tensor, zeros } from "./tensors.ts";
import type { Vocabulary } from "./vocabulary.ts";

interface RandomBert {
  name: string;
  seed: string;
  layers: number;
  embedding: number;
  heads: number;
  feedForward: number;
  contextLength: number;
  type: TensorType;
  vocabulary: Vocabulary;
}

const NORM_EPSILON = 1e-12;
/** One vector for a text: the mean of its tokens'. */
const POOLING_MEAN = 1;
/** Positions and segments matter less than words. */
const PLACE_DEVIATION = 0.1;
const SEGMENTS = 2;

/** A BERT with random weights: embeddings that mean nothing, but are the same for the same text. */
export function randomBert(model: RandomBert): ModelFile {
  const { seed, embedding, type, vocabulary, contextLength } = model;
  const place = (name: string, length: number) =>
    random(seed, { name, shape: [embedding, length], type: "f32", deviation: PLACE_DEVIATION });
  const tensors: Tensor[] = [
    random(seed, { name: "token_embd.weight", shape: [embedding, vocabulary.size], type, deviation: 1 }),
    place("token_types.weight", SEGMENTS),
    place("position_embd.weight", contextLength),
    ...norm("token_embd_norm", embedding),
  ];
  for (let layer = 0; layer < model.layers; layer++) tensors.push(...blockOf(model, `blk.${layer}`));
  return {
    metadata: [
      ["general.architecture", text("bert")],
      ["general.name", text(model.name)],
      ["general.file_type", u32(LAYOUTS[type].fileType)],
      ["bert.block_count", u32(model.layers)],
      ["bert.context_length", u32(contextLength)],
      ["bert.embedding_length", u32(embedding)],
      ["bert.feed_forward_length", u32(model.feedForward)],
      ["bert.attention.head_count", u32(model.heads)],
      ["bert.attention.layer_norm_epsilon", f32(NORM_EPSILON)],
      ["bert.attention.causal", boolean(false)],
      ["bert.pooling_type", u32(POOLING_MEAN)],
      ...vocabulary.metadata,
    ],
    tensors,
  };
}

function blockOf({ seed, embedding, feedForward, type }: RandomBert, block: string): Tensor[] {
  const linear = (name: string, inputs: number, outputs: number) => [
    random(seed, {
      ...{ name: `${block}.${name}.weight`, shape: [inputs, outputs], type },
      deviation: 1 / Math.sqrt(inputs),
    }),
    zeros(`${block}.${name}.bias`, outputs),
  ];
  return [
    ...["attn_q", "attn_k", "attn_v", "attn_output"].flatMap((name) => linear(name, embedding, embedding)),
    ...norm(`${block}.attn_output_norm`, embedding),
    ...linear("ffn_up", embedding, feedForward),
    ...linear("ffn_down", feedForward, embedding),
    ...norm(`${block}.layer_output_norm`, embedding),
  ];
}

function norm(name: string, length: number): Tensor[] {
  return [ones(`${name}.weight`, length), zeros(`${name}.bias`, length)];
}
