import { type CallPiece, MAX_CALLS } from "./chunk.ts";
import type { Emit, ItemStatus, OutputItem } from "./emit.ts";

/** A function call that is known by its name: an item. */
export class FunctionCall implements OutputItem {
  readonly #emit: Emit;
  readonly #id: string;
  readonly #output_index: number;
  readonly #call_id: string;
  readonly #name: string;
  #status: ItemStatus = "in_progress";
  #arguments = "";

  constructor(
    emit: Emit,
    { id, output_index, call_id, name }: { id: string; output_index: number; call_id: string; name: string },
  ) {
    this.#emit = emit;
    this.#id = `fc_${id}`;
    this.#output_index = output_index;
    this.#call_id = call_id;
    this.#name = name;
    emit("response.output_item.added", { output_index, item: this.json() });
  }

  get closed(): boolean {
    return this.#status !== "in_progress";
  }

  add(delta: string): void {
    this.#arguments += delta;
    this.#emit("response.function_call_arguments.delta", { ...this.#place(), delta });
  }

  close(status: Exclude<ItemStatus, "in_progress">): void {
    // Some models say nothing where a function takes nothing; no client can read that as JSON.
    if (this.#arguments === "" && status === "completed") this.add("{}");
    this.#status = status;
    this.#emit("response.function_call_arguments.done", { ...this.#place(), arguments: this.#arguments });
    this.#emit("response.output_item.done", { output_index: this.#output_index, item: this.json() });
  }

  abandon(): void {
    this.#status = "incomplete";
  }

  json(): Record<string, unknown> {
    return {
      id: this.#id,
      type: "function_call",
      status: this.#status,
      call_id: this.#call_id,
      name: this.#name,
      arguments: this.#arguments,
    };
  }

  #place(): Record<string, unknown> {
    return { item_id: this.#id, output_index: this.#output_index };
  }
}

/** What is known of a call before it can be told. */
export interface CallDraft {
  id: string | undefined;
  name: string | undefined;
  /** Arguments that came before the name. */
  arguments: string;
  /** Once the name is known. */
  item: FunctionCall | undefined;
}

/** Finds the call a piece belongs to: by its index, by its id, or by what came last. */
export class CallDrafts {
  readonly #byIndex = new Map<number, CallDraft>();
  readonly #byId = new Map<string, CallDraft>();
  #count = 0;
  #last: CallDraft | undefined;

  /** Undefined for a piece of a call too many, and for one that belongs to no call. */
  of(piece: CallPiece): CallDraft | undefined {
    const draft = this.#find(piece) ?? this.#begin(piece);
    this.#last = draft;
    if (draft === undefined) return undefined;
    draft.name ??= piece.name;
    if (draft.id === undefined && piece.id !== undefined) {
      draft.id = piece.id;
      this.#byId.set(piece.id, draft);
    }
    return draft;
  }

  #find({ index, id, name }: CallPiece): CallDraft | undefined {
    const numbered = index === undefined ? undefined : this.#byIndex.get(index);
    // Some providers give every call the number 0; a new name under another id is another call.
    const another =
      name !== undefined && id !== undefined && numbered?.id !== undefined && numbered.id !== id;
    if (index !== undefined && !another) return numbered;
    if (id !== undefined) return this.#byId.get(id);
    return name === undefined ? this.#last : undefined;
  }

  #begin({ index, id, name }: CallPiece): CallDraft | undefined {
    const nameless = index === undefined && id === undefined && name === undefined;
    if (nameless || this.#count >= MAX_CALLS) return undefined;
    this.#count += 1;
    const draft: CallDraft = { id: undefined, name: undefined, arguments: "", item: undefined };
    if (index !== undefined) this.#byIndex.set(index, draft);
    return draft;
  }
}
