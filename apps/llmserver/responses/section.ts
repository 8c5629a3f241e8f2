import type { Logprob, TextKind } from "./chunk.ts";
import type { Emit, ItemStatus, OutputItem, ResponseEventType } from "./emit.ts";

type Json = Record<string, unknown>;

/** Reasoning is told as what it is, or as the summary that was asked for. */
export type SectionKind = TextKind | "summary";

/** Probabilities are kept for no more tokens than the text can have, and some that say nothing. */
const LOGPROBS_PER_CHARACTER = 4;
const SPARE_LOGPROBS = 64;

/** How one kind of text is told. */
interface Words {
  /** Beginning of its item's id. */
  prefix: "msg" | "rs";
  /** The index of its only part, by its name. */
  place: Json;
  added: ResponseEventType;
  delta: ResponseEventType;
  textDone: ResponseEventType;
  done: ResponseEventType;
  /** Where the text stands in the part and in `textDone`. */
  field: "text" | "refusal";
  part: Json;
  /** The item around its parts. */
  item(parts: Json[]): Json;
}

const CONTENT = {
  place: { content_index: 0 },
  added: "response.content_part.added",
  done: "response.content_part.done",
} as const;

const message = (content: Json[]): Json => ({ type: "message", role: "assistant", content });

const WORDS: Readonly<Record<SectionKind, Words>> = {
  text: {
    ...CONTENT,
    prefix: "msg",
    delta: "response.output_text.delta",
    textDone: "response.output_text.done",
    field: "text",
    part: { type: "output_text", annotations: [] },
    item: message,
  },
  refusal: {
    ...CONTENT,
    prefix: "msg",
    delta: "response.refusal.delta",
    textDone: "response.refusal.done",
    field: "refusal",
    part: { type: "refusal" },
    item: message,
  },
  reasoning: {
    ...CONTENT,
    prefix: "rs",
    delta: "response.reasoning_text.delta",
    textDone: "response.reasoning_text.done",
    field: "text",
    part: { type: "reasoning_text" },
    item: (content) => ({ type: "reasoning", summary: [], content }),
  },
  summary: {
    prefix: "rs",
    place: { summary_index: 0 },
    added: "response.reasoning_summary_part.added",
    delta: "response.reasoning_summary_text.delta",
    textDone: "response.reasoning_summary_text.done",
    done: "response.reasoning_summary_part.done",
    field: "text",
    part: { type: "summary_text" },
    item: (summary) => ({ type: "reasoning", summary }),
  },
};

/** A run of text of one kind: an item with one part. */
export class Section implements OutputItem {
  readonly kind: SectionKind;
  readonly #emit: Emit;
  readonly #words: Words;
  readonly #id: string;
  readonly #output_index: number;
  #status: ItemStatus = "in_progress";
  #text = "";
  readonly #logprobs: Logprob[] = [];

  /** `id`: without its prefix. */
  constructor(emit: Emit, kind: SectionKind, id: string, output_index: number) {
    this.kind = kind;
    this.#emit = emit;
    this.#words = WORDS[kind];
    this.#id = `${this.#words.prefix}_${id}`;
    this.#output_index = output_index;
    emit("response.output_item.added", { output_index, item: this.#item([]) });
    emit(this.#words.added, { ...this.#place(), part: this.#part() });
  }

  get closed(): boolean {
    return this.#status !== "in_progress";
  }

  add(delta: string, logprobs: readonly Logprob[]): void {
    this.#text += delta;
    const room = this.#text.length * LOGPROBS_PER_CHARACTER + SPARE_LOGPROBS - this.#logprobs.length;
    const kept = logprobs.slice(0, Math.max(0, room));
    for (const logprob of kept) this.#logprobs.push(logprob);
    this.#emit(this.#words.delta, { ...this.#place(), delta, ...this.#withLogprobs(kept) });
  }

  close(status: Exclude<ItemStatus, "in_progress">): void {
    this.#status = status;
    const { textDone, field, done } = this.#words;
    const logprobs = this.#withLogprobs(this.#logprobs);
    this.#emit(textDone, { ...this.#place(), [field]: this.#text, ...logprobs });
    this.#emit(done, { ...this.#place(), part: this.#part() });
    this.#emit("response.output_item.done", { output_index: this.#output_index, item: this.json() });
  }

  abandon(): void {
    this.#status = "incomplete";
  }

  json(): Json {
    return this.#item([this.#part()]);
  }

  #item(parts: Json[]): Json {
    return { id: this.#id, status: this.#status, ...this.#words.item(parts) };
  }

  #part(): Json {
    const { part, field } = this.#words;
    return { ...part, [field]: this.#text, ...this.#withLogprobs(this.#logprobs) };
  }

  #place(): Json {
    return { item_id: this.#id, output_index: this.#output_index, ...this.#words.place };
  }

  /** Only what is said has probabilities; for it, the list may be empty but not missing. */
  #withLogprobs(logprobs: readonly Logprob[]): Json {
    return this.kind === "text" ? { logprobs } : {};
  }
}
