import type { Token } from "node-llama-cpp";
import type { FinishReason, TokenLogprob } from "../types.ts";
import type { SamplingOptions } from "./sampling.ts";

/** Thrown through whatever is generating when a choice has all it wants, or is not wanted any more. */
export class Ended extends Error {
  readonly reason: FinishReason | "cancelled";

  constructor(reason: FinishReason | "cancelled") {
    super(`Generation ended: ${reason}.`);
    this.name = "Ended";
    this.reason = reason;
  }
}

export interface RunOptions {
  sequenceId: number;
  /** Output tokens after which it ends, whoever wants more. */
  maxTokens: number;
  /** Tokens of the request's prompt; a forced tool call begins after it. */
  prompt: readonly Token[];
  sampling: SamplingOptions;
  /** Alternatives per token; undefined = none are looked at. */
  logprobs?: number | undefined;
  signal: AbortSignal;
}

/**
 * One choice on one sequence: counts what is evaluated and sampled, and can be ended at any step.
 *
 * Output tokens are those the model chose, whether they were shown, are part of a tool call's syntax or end a stop
 * string; the one that ends the generation (EOG) is not counted, nor are tokens a grammar or template put there unasked.
 */
export class Run {
  readonly sequenceId: number;
  readonly sampling: SamplingOptions;
  readonly logprobs: number | undefined;
  readonly #options: RunOptions;
  /** Tokens of the prompt that are in the context so far, those found there included. */
  input = 0;
  cached = 0;
  /** Tokens the model chose, in order, EOG left out. */
  readonly output: Token[] = [];
  readonly prompt: readonly Token[];
  /** Of the tokens chosen and not yet delivered, oldest first. */
  readonly tokenLogprobs: { token: Token; logprob: TokenLogprob }[] = [];
  /** Told of every token as it is chosen. */
  onSampled: (token: Token, isEnd: boolean) => void = () => {};
  #begun = false;
  #ended: FinishReason | "cancelled" | undefined;

  constructor(options: RunOptions) {
    this.#options = options;
    this.sequenceId = options.sequenceId;
    this.prompt = options.prompt;
    this.sampling = options.sampling;
    this.logprobs = options.logprobs;
  }

  /**
   * The first evaluation is the prompt's; later ones of the same choice put the syntax of a tool call there.
   * @param present tokens that are in the context already.
   */
  begin(present: number): void {
    if (this.#begun) return;
    this.#begun = true;
    this.cached = Math.min(present, this.prompt.length);
    this.input = this.cached;
  }

  evaluated(tokens: number): void {
    this.input = Math.min(this.prompt.length, this.input + tokens);
  }

  sampled(token: Token, isEnd: boolean): void {
    if (!isEnd) this.output.push(token);
    this.onSampled(token, isEnd);
  }

  /** It has all it wants: ends before the next step. */
  end(reason: FinishReason): void {
    this.#ended ??= reason;
  }

  /** @throws Ended. */
  check(): void {
    if (this.#options.signal.aborted) throw new Ended("cancelled");
    if (this.#ended !== undefined) throw new Ended(this.#ended);
    if (this.output.length >= this.#options.maxTokens) throw new Ended("length");
  }

  get signal(): AbortSignal {
    return this.#options.signal;
  }
}
