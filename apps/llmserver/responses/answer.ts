import { type CallPiece, type Piece, readChunk } from "./chunk.ts";
import type { Emit, OutputItem } from "./emit.ts";
import { type CallDraft, CallDrafts, FunctionCall } from "./function-call.ts";
import type { ResponsesRequest } from "./request.ts";
import type { ResponseState } from "./response-object.ts";
import { Section, type SectionKind } from "./section.ts";

type Json = Record<string, unknown>;

/** An answer that changes more often between what it says and what it thinks goes on in the items it has. */
const MAX_SECTIONS = 64;

/** Why an answer is not whole, by the chat's word for it. */
const INCOMPLETE: Readonly<Record<string, ResponseState["reason"]>> = {
  length: "max_output_tokens",
  content_filter: "content_filter",
};

/**
 * The output of a response, made from a chat completion's chunks. Each run of reasoning, of text and of refusal is an
 * item, and so is each call; they stand in the order in which they began. Runs are closed when something else begins;
 * calls at the end, for a provider may write several at once. Holds what was answered, nothing else.
 */
export class Answer {
  readonly #request: ResponsesRequest;
  readonly #idStem: string;
  readonly #emit: Emit;
  readonly #items: OutputItem[] = [];
  readonly #calls = new CallDrafts();
  readonly #callIds = new Set<string>();
  #sections: Section[] = [];
  #begunSections = 0;
  /** What was written to last: where an answer that was cut off ends. */
  #last: OutputItem | undefined;
  #finishReason: string | undefined;
  #reasoningTokens = 0;

  /** `emit` is told everything that happens to the items. */
  constructor(request: ResponsesRequest, response_id: string, emit: Emit) {
    this.#request = request;
    this.#idStem = response_id.replace(/^resp_/, "");
    this.#emit = emit;
  }

  /** As far as the provider told. */
  get reasoningTokens(): number {
    return this.#reasoningTokens;
  }

  get output(): Json[] {
    return this.#items.map((item) => item.json());
  }

  /** One chunk (`chat.completion.chunk`) or a whole completion; what it has wrong is left out. Never throws. */
  take(chunk: Json): void {
    const { pieces, finishReason, reasoningTokens } = readChunk(chunk);
    this.#finishReason = finishReason ?? this.#finishReason;
    this.#reasoningTokens = reasoningTokens ?? this.#reasoningTokens;
    for (const piece of pieces) this.#add(piece);
  }

  /** Nothing more comes. @returns why the answer was cut off; undefined when it is whole. */
  close(): ResponseState["reason"] {
    const reason = Object.hasOwn(INCOMPLETE, this.#finishReason ?? "")
      ? INCOMPLETE[this.#finishReason ?? ""]
      : undefined;
    // Clients expect something to have been said.
    if (this.#items.length === 0) this.#last = this.#section("text");
    for (const item of this.#items) {
      if (item.closed) continue;
      item.close(item === this.#last && reason !== undefined ? "incomplete" : "completed");
    }
    return reason;
  }

  /** It broke: its items stay as they are, without a word. */
  abandon(): void {
    for (const item of this.#items) if (!item.closed) item.abandon();
  }

  #add(piece: Piece): void {
    if (piece.kind === "call") {
      this.#addCall(piece.call);
      return;
    }
    const logprobs = this.#request.logprobs === undefined ? [] : piece.logprobs;
    // A token without text is half a character: it counts where probabilities do.
    if (piece.text === "" && logprobs.length === 0) return;
    const summarised = piece.kind === "reasoning" && this.#request.summary !== undefined;
    const section = this.#section(summarised ? "summary" : piece.kind);
    section.add(piece.text, logprobs);
    this.#last = section;
  }

  /** The run of this kind that goes on, or a new one. */
  #section(kind: SectionKind): Section {
    const open = this.#sections.find((section) => section.kind === kind);
    if (open !== undefined) return open;
    this.#closeSections();
    this.#begunSections += 1;
    const section = new Section(this.#emit, kind, this.#nextId(), this.#items.length);
    this.#sections.push(section);
    this.#items.push(section);
    return section;
  }

  #closeSections(): void {
    if (this.#begunSections >= MAX_SECTIONS) return;
    for (const section of this.#sections) section.close("completed");
    this.#sections = [];
  }

  #addCall(piece: CallPiece): void {
    const draft = this.#calls.of(piece);
    if (draft === undefined) return;
    const begun = draft.item;
    if (begun === undefined) draft.arguments += piece.arguments;
    const item = begun ?? this.#beginCall(draft);
    if (item === undefined) return;
    const delta = begun === undefined ? draft.arguments : piece.arguments;
    if (delta !== "") item.add(delta);
    this.#last = item;
  }

  /** Undefined as long as its name is not known; a call that never has one is none. */
  #beginCall(draft: CallDraft): FunctionCall | undefined {
    const { name } = draft;
    if (name === undefined) return undefined;
    this.#closeSections();
    const id = this.#nextId();
    // Clients take an id that comes twice for the same call.
    const call_id = draft.id === undefined || this.#callIds.has(draft.id) ? `call_${id}` : draft.id;
    this.#callIds.add(call_id);
    const item = new FunctionCall(this.#emit, { id, output_index: this.#items.length, call_id, name });
    this.#items.push(item);
    draft.item = item;
    return item;
  }

  /** Like the response's, with the item's place: the same answer has the same ids. */
  #nextId(): string {
    return `${this.#idStem}${this.#items.length.toString(16).padStart(3, "0")}`;
  }
}
