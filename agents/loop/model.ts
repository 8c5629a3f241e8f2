/** One call of a tool as the model asked for it; `arguments` is JSON. The shape is the chat API's own. */
export interface ToolCall {
  readonly id: string;
  readonly type: "function";
  readonly function: { readonly name: string; readonly arguments: string };
}

/** One message of a session. Every call of an assistant's message is answered by a tool's message after it. */
export type Message =
  | { readonly role: "system"; readonly content: string }
  | { readonly role: "user"; readonly content: string }
  | {
      readonly role: "assistant";
      /** Null: nothing but calls. */
      readonly content: string | null;
      readonly tool_calls?: readonly ToolCall[];
    }
  | { readonly role: "tool"; readonly tool_call_id: string; readonly content: string };

/** A tool as the model is told of it; `parameters` is a JSON schema. */
export interface ToolSpec {
  readonly name: string;
  readonly description: string;
  readonly parameters: Readonly<Record<string, unknown>>;
}

/** One question to the model. */
export interface ModelCall {
  readonly messages: readonly Message[];
  readonly tools: readonly ToolSpec[];
  readonly maxOutputTokens: number;
  /** 0..2; left to the model when absent. */
  readonly temperature?: number;
}

/** In tokens, as the model's provider counts. */
export interface ModelUsage {
  readonly input_tokens: number;
  readonly output_tokens: number;
}

/** One piece of an answer. */
export type ModelDelta =
  | { readonly type: "text"; readonly text: string }
  | { readonly type: "thought"; readonly text: string }
  /** A piece of the call number `index`: its id and name come first, its arguments in any number of pieces. */
  | {
      readonly type: "call";
      readonly index: number;
      readonly id?: string;
      readonly name?: string;
      readonly arguments?: string;
    }
  /** Why the answer ended, by the model's own word: `stop`, `tool_calls`, `length`, `content_filter`. */
  | { readonly type: "finish"; readonly reason: string }
  | ({ readonly type: "usage" } & ModelUsage);

/** Whoever answers. */
export interface Model {
  /**
   * Ask, and get the answer piece by piece. Ends at once when `signal` aborts, or when nobody reads on.
   * @throws AppError for every failure of the model; what `signal` was aborted with.
   */
  stream(call: ModelCall, signal: AbortSignal): AsyncIterable<ModelDelta>;
}
