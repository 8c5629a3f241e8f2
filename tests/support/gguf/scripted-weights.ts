import type { ModelFile } from "./file-format.ts";
import { type LlamaShape, llamaMetadata } from "./llama.ts";
import { fixed, ones, type Tensor } from "./tensors.ts";
import type { Vocabulary } from "./vocabulary.ts";

/** What a model says, token by token. */
export interface Script {
  name: string;
  contextLength: number;
  vocabulary: Vocabulary;
  /** What follows a token. */
  next: ReadonlyMap<number, number>;
  /** `says` follows `at` when `seen` is anywhere in the context. A later switch outweighs those before it. */
  switches: readonly { seen: number; at: number; says: number }[];
  /** What is said where a grammar forbids the above: the first of these that it allows. */
  otherwise: readonly number[];
}

/** Every token has a dimension of its own; the last ones are the switches'. */
const EMBEDDING = 512;
const HEADS = 8;
const HEAD = EMBEDDING / HEADS;
const FEED_FORWARD = 64;
/** What a dimension that stands alone has after a normalisation by the root of the mean square. */
const UNIT = Math.sqrt(EMBEDDING);
/** Turns so slowly in a head's last pair of dimensions that positions make no difference. */
const ROPE_BASE = 1e12;

/** Logits. The script wins at every temperature in use, and a bias of 100 still beats it. */
const NEXT = 80;
const OTHERWISE_FIRST = 48;
const OTHERWISE_STEP = 6;
/** A switch's logit is so many times `NEXT`, one more for each that is before it. */
const SWITCH_FIRST = 2;

/** Query and key of a token that is looked for: their score is 16 * 16 / sqrt(64) = 32, and e^32 drowns any context. */
const ATTENTION = 16;
/** What is found is noted small, or it would change the scale of everything else. */
const NOTE = 0.1;
/** Inputs of a product of two conditions, far up where the gate's curve is straight. */
const CONDITION = 16;
const DECISION = 0.5;

/** Where a head's answer stands, and the dimension that positions turn the least. */
const ANSWER = 0;
const STEADY = HEAD - 2;

/**
 * Weights of one llama layer that say what the script says, computed by hand:
 *
 * - Embeddings are one dimension per token, and the output matrix is the table of what follows what.
 * - One attention head per switch asks, from every token, for the one token that has its key; having found it, it notes
 *   that in a dimension of its own.
 * - One unit of the feed-forward layer per switch multiplies that note with "the current token is `at`": both are needed.
 * @throws Error when the vocabulary or the switches do not fit.
 */
export function scriptedLlama(script: Script): ModelFile {
  const { vocabulary, switches } = script;
  if (vocabulary.size + 2 * switches.length > EMBEDDING || switches.length > HEADS) {
    throw new Error(`${vocabulary.size} tokens and ${switches.length} switches do not fit`);
  }
  const shape: LlamaShape = {
    ...{ layers: 1, embedding: EMBEDDING, heads: HEADS, keyValueHeads: HEADS, feedForward: FEED_FORWARD },
    ...{ contextLength: script.contextLength, ropeBase: ROPE_BASE, tied: false },
  };
  const tensors: Tensor[] = [
    matrix("token_embd", EMBEDDING, vocabulary.size, (put) => {
      for (let token = 0; token < vocabulary.size; token++) put(token, token, 1);
    }),
    ones("output_norm.weight", EMBEDDING),
    matrix("output", EMBEDDING, vocabulary.size, (put) => fillOutput(script, put)),
    ones("blk.0.attn_norm.weight", EMBEDDING),
    ...attention(script),
    ones("blk.0.ffn_norm.weight", EMBEDDING),
    ...feedForward(script),
  ];
  return { metadata: llamaMetadata(script.name, shape, "f16", vocabulary), tensors };
}

/** Add to the weight from an input to an output. */
type Put = (output: number, input: number, weight: number) => void;

function matrix(name: string, inputs: number, outputs: number, fill: (put: Put) => void): Tensor {
  const values = new Float32Array(inputs * outputs);
  fill((output, input, weight) => {
    const index = output * inputs + input;
    values[index] = (values[index] ?? 0) + weight;
  });
  return fixed(`${name}.weight`, [inputs, outputs], "f16", values);
}

/** Where a switch notes that its token was seen, and where that it decides. */
function noteOf(index: number): number {
  return EMBEDDING - 1 - 2 * index;
}

function decisionOf(index: number): number {
  return noteOf(index) - 1;
}

function fillOutput({ vocabulary, next, switches, otherwise }: Script, put: Put): void {
  for (const [token, follower] of next) put(follower, token, NEXT / UNIT);
  for (const [rank, follower] of otherwise.entries()) {
    const logit = OTHERWISE_FIRST - rank * OTHERWISE_STEP;
    for (let token = 0; token < vocabulary.size; token++) put(follower, token, logit / UNIT);
  }
  for (const [index, { says }] of switches.entries()) {
    put(says, decisionOf(index), (NEXT * (SWITCH_FIRST + index)) / (DECISION * UNIT));
  }
}

function attention({ switches }: Script): Tensor[] {
  const square = (name: string, fill: (put: Put) => void) => matrix(name, EMBEDDING, EMBEDDING, fill);
  const forEach = (fill: (seen: number, head: number, index: number) => void) => {
    for (const [index, { seen }] of switches.entries()) fill(seen, index * HEAD, index);
  };
  return [
    square("blk.0.attn_q", (put) =>
      forEach((_seen, head) => {
        for (let token = 0; token < EMBEDDING; token++) put(head + STEADY, token, ATTENTION / UNIT);
      }),
    ),
    square("blk.0.attn_k", (put) => forEach((seen, head) => put(head + STEADY, seen, ATTENTION / UNIT))),
    square("blk.0.attn_v", (put) => forEach((seen, head) => put(head + ANSWER, seen, 1 / UNIT))),
    square("blk.0.attn_output", (put) =>
      forEach((_seen, head, index) => put(noteOf(index), head + ANSWER, NOTE)),
    ),
  ];
}

function feedForward({ switches }: Script): Tensor[] {
  const conditions = (name: string, fill: (put: Put) => void) => matrix(name, EMBEDDING, FEED_FORWARD, fill);
  return [
    conditions("blk.0.ffn_gate", (put) => {
      for (const [unit, { at }] of switches.entries()) put(unit, at, CONDITION / UNIT);
    }),
    conditions("blk.0.ffn_up", (put) => {
      for (const unit of switches.keys()) put(unit, noteOf(unit), CONDITION / (NOTE * UNIT));
    }),
    matrix("blk.0.ffn_down", FEED_FORWARD, EMBEDDING, (put) => {
      for (const unit of switches.keys()) put(decisionOf(unit), unit, DECISION / CONDITION ** 2);
    }),
  ];
}
