import { AppError } from "#schemas";
import type { ModelDelta, ModelUsage, ToolCall } from "./model.ts";

/** No answer is longer, whatever a provider streams; characters of text, thoughts and arguments together. */
const MAX_ANSWER_CHARS = 4 * 1024 * 1024;
const MAX_CALLS = 32;

interface Draft {
  id: string;
  name: string;
  /** In pieces, joined once. */
  readonly parts: string[];
}

/** One answer of the model while it streams. */
export class Answer {
  readonly #newId: (wanted: string) => string;
  readonly #text: string[] = [];
  readonly #calls = new Map<number, Draft>();
  #chars = 0;
  finish: string | undefined;
  usage: ModelUsage | undefined;

  /** `newId` makes of the model's own id one that no other call of the session has. */
  constructor(newId: (wanted: string) => string) {
    this.#newId = newId;
  }

  /** @returns the call that has just become known by name. @throws AppError ProviderError for an endless answer. */
  take(delta: ModelDelta): { id: string; name: string } | undefined {
    if (delta.type === "finish") this.finish = delta.reason;
    else if (delta.type === "usage") this.usage = delta;
    else if (delta.type === "call") return this.#takeCall(delta);
    else {
      this.#count(delta.text);
      if (delta.type === "text") this.#text.push(delta.text);
    }
    return undefined;
  }

  get text(): string {
    return this.#text.join("");
  }

  /** In the order they were begun. */
  calls(): ToolCall[] {
    return [...this.#calls.values()].map(({ id, name, parts }) => ({
      id,
      type: "function",
      function: { name: name || "unnamed", arguments: parts.join("") },
    }));
  }

  #takeCall(delta: Extract<ModelDelta, { type: "call" }>): { id: string; name: string } | undefined {
    let draft = this.#calls.get(delta.index);
    if (draft === undefined) {
      if (this.#calls.size >= MAX_CALLS) throw endless();
      draft = { id: this.#newId(delta.id ?? ""), name: "", parts: [] };
      this.#calls.set(delta.index, draft);
    }
    if (delta.arguments !== undefined) {
      this.#count(delta.arguments);
      draft.parts.push(delta.arguments);
    }
    if (draft.name !== "" || delta.name === undefined || delta.name === "") return undefined;
    this.#count(delta.name);
    draft.name = delta.name;
    return draft;
  }

  #count(text: string): void {
    this.#chars += text.length;
    if (this.#chars > MAX_ANSWER_CHARS) throw endless();
  }
}

function endless(): AppError {
  return new AppError("ProviderError", "The model's answer is longer than any answer may be.", {
    hint: "Dispatch the task again, or choose another model.",
  });
}
