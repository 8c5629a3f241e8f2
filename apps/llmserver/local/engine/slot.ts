import type {
  ContextShiftOptions,
  EvaluationPriority,
  LlamaContextSequence,
  LlamaModel,
  SequenceEvaluateOptions,
  Token,
} from "node-llama-cpp";
import type { Conductor } from "./conductor.ts";
import { type RawLogits, rawLogitsOf } from "./raw-logits.ts";
import { Ended, type Run } from "./run.ts";

/** Never silently: a prompt that does not fit is refused, an answer that reaches the end is finished. */
const NO_SHIFT: ContextShiftOptions = {
  size: () => {
    throw new Ended("length");
  },
};

/**
 * One sequence of the context and, while a choice is generated on it, its run. Everything the library evaluates on this
 * sequence goes through here, whether a chat of the library or a loop of ours asks for it: in step with the other
 * sequences, a long prompt in pieces, cancellable between any two steps, every token counted.
 */
export class Slot {
  readonly id: number;
  readonly sequence: LlamaContextSequence;
  readonly #model: LlamaModel;
  readonly #conductor: Conductor;
  readonly #evaluate: LlamaContextSequence["evaluate"];
  readonly #absorb: LlamaContextSequence["evaluateWithoutGeneratingNewTokens"];
  readonly #rawLogits: RawLogits | undefined;
  #run: Run | undefined;
  /** When it was last given back, for choosing the one whose content is missed least. */
  lastUsed = 0;

  constructor(id: number, sequence: LlamaContextSequence, conductor: Conductor) {
    this.id = id;
    this.sequence = sequence;
    this.#model = sequence.model;
    this.#conductor = conductor;
    this.#rawLogits = rawLogitsOf(sequence, () => this.#run);
    this.#evaluate = sequence.evaluate.bind(sequence);
    this.#absorb = sequence.evaluateWithoutGeneratingNewTokens.bind(sequence);
    sequence.evaluate = (tokens, options) => this.#generate(tokens, options);
    sequence.evaluateWithoutGeneratingNewTokens = async (tokens) => {
      const run = this.#currentRun();
      run.begin(sequence.nextTokenIndex);
      await this.#inStep(run, async () => void (await this.#prefill(run, tokens, 0)));
    };
  }

  /** Whether log-probabilities can be had from this version of the library. */
  get hasLogprobs(): boolean {
    return this.#rawLogits !== undefined;
  }

  /** How many tokens of `prompt` are in the context already; the last is always evaluated anew. */
  sharedPrefix(prompt: Token[]): number {
    const { firstDifferentIndex } = this.sequence.compareContextTokens(prompt);
    return Math.min(firstDifferentIndex, prompt.length - 1);
  }

  /** Do `work` with this run's rules in force. */
  async use<T>(run: Run, work: () => Promise<T>): Promise<T> {
    this.#run = run;
    const abandon = () => this.#conductor.abandon(run);
    run.signal.addEventListener("abort", abandon, { once: true });
    try {
      return await work();
    } catch (error) {
      // After a failed computation nobody knows what the context holds.
      if (!(error instanceof Ended)) await this.sequence.clearHistory();
      throw error;
    } finally {
      run.signal.removeEventListener("abort", abandon);
      this.#conductor.leave(run);
      this.#run = undefined;
      this.lastUsed = performance.now();
    }
  }

  #currentRun(): Run {
    if (this.#run === undefined) throw new Error("A sequence is evaluated that nobody uses.");
    return this.#run;
  }

  async *#generate(tokens: Token[], options: SequenceEvaluateOptions = {}): AsyncGenerator<Token, void> {
    const run = this.#currentRun();
    run.begin(this.sequence.nextTokenIndex);
    this.#conductor.join(run);
    try {
      const rest = await this.#prefill(run, tokens, 1);
      const iterator = this.#evaluate(rest, this.#optionsFor(run, options));
      try {
        let absorbed = rest.length;
        while (true) {
          const { value, done } = await this.#step(run, () => iterator.next());
          run.evaluated(absorbed);
          absorbed = 0;
          if (done === true || value === undefined) return;
          run.sampled(value, this.#model.isEogToken(value));
          yield value;
          await this.#nextTurn(run, 1);
        }
      } finally {
        await iterator.return();
      }
    } finally {
      this.#conductor.leave(run);
    }
  }

  /**
   * Evaluate until what is left fits into one step, and take that step's turn unless nothing is to be left.
   * @returns what is left.
   */
  async #prefill(run: Run, tokens: readonly Token[], leave: 0 | 1): Promise<Token[]> {
    let rest = [...tokens];
    while (rest.length > 0) {
      const granted = await this.#nextTurn(run, rest.length);
      if (leave === 1 && granted >= rest.length) return rest;
      const chunk = rest.slice(0, granted);
      await this.#step(run, () => this.#absorb(chunk, { ...this.#order(run), contextShift: NO_SHIFT }));
      run.evaluated(chunk.length);
      rest = rest.slice(granted);
    }
    return rest;
  }

  async #nextTurn(run: Run, wanted: number): Promise<number> {
    run.check();
    const granted = await this.#conductor.turn(run, wanted);
    run.check();
    return granted;
  }

  async #step<T>(run: Run, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } finally {
      this.#conductor.done(run);
    }
  }

  async #inStep<T>(run: Run, work: () => Promise<T>): Promise<T> {
    this.#conductor.join(run);
    try {
      return await work();
    } finally {
      this.#conductor.leave(run);
    }
  }

  #optionsFor(run: Run, { grammarEvaluationState }: SequenceEvaluateOptions): SequenceEvaluateOptions {
    return {
      ...run.sampling.evaluation(run),
      ...(grammarEvaluationState === undefined ? {} : { grammarEvaluationState }),
      ...this.#order(run),
      contextShift: NO_SHIFT,
      yieldEogToken: true,
    };
  }

  /** The priority is the one field of our own that reaches the batching strategy: it carries the sequence's id. */
  #order(run: Run): { evaluationPriority: EvaluationPriority } {
    return { evaluationPriority: run.sequenceId as EvaluationPriority };
  }
}
