import type { TokenLogprob } from "../types.ts";
import { JsonEnd } from "./json-end.ts";
import type { ChoiceSink } from "./outbox.ts";
import type { Run } from "./run.ts";
import { StopFilter } from "./stop-filter.ts";

/**
 * The text of one choice on its way out: cut where its JSON value ends or a stop string begins, with the
 * log-probabilities of the tokens it was made of.
 */
export class ChoiceText {
  readonly #run: Run;
  readonly #sink: ChoiceSink;
  readonly #stops: StopFilter;
  readonly #json: JsonEnd | undefined;
  /** Characters taken in and given out, to know which tokens are out. */
  #taken = 0;
  #given = 0;
  readonly #heldLogprobs: { end: number; logprob: TokenLogprob }[] = [];
  #thought = false;

  constructor(run: Run, sink: ChoiceSink, { stop, json }: { stop: readonly string[]; json: boolean }) {
    this.#run = run;
    this.#sink = sink;
    this.#stops = new StopFilter(stop);
    this.#json = json ? new JsonEnd() : undefined;
  }

  reasoning(text: string): void {
    this.#thought = true;
    if (text !== "") this.#sink.reasoning(text);
  }

  /** @param tokens those `piece` was made of. */
  push(piece: string, tokens: readonly number[]): void {
    let text = piece;
    // The line breaks between thoughts and answer belong to neither.
    if (this.#thought && this.#taken === 0) text = text.trimStart();
    if (this.#json !== undefined) text = this.#json.push(text);
    this.#taken += text.length;
    this.#holdLogprobs(tokens);
    const filtered = this.#stops.push(text);
    this.#give(filtered.text);
    if (filtered.stopped || this.#json?.done === true) this.#run.end("stop");
  }

  /** What was held back, when nothing more comes. */
  finish(): void {
    this.#give(this.#stops.rest());
  }

  #give(text: string): void {
    this.#given += text.length;
    const logprobs: TokenLogprob[] = [];
    while (this.#heldLogprobs[0] !== undefined && this.#heldLogprobs[0].end <= this.#given) {
      logprobs.push(this.#heldLogprobs[0].logprob);
      this.#heldLogprobs.shift();
    }
    if (text !== "" || logprobs.length > 0) this.#sink.text(text, logprobs);
  }

  #holdLogprobs(tokens: readonly number[]): void {
    const known = this.#run.tokenLogprobs;
    for (const token of tokens) {
      const at = known.findIndex((entry) => entry.token === token);
      // Tokens in between were thoughts or syntax.
      const found = at < 0 ? undefined : known.splice(0, at + 1).at(-1);
      if (found !== undefined) this.#heldLogprobs.push({ end: this.#taken, logprob: found.logprob });
    }
  }
}
