/** Every event a response is told in: OpenAI's, as far as a chat can lead to them. */
export type ResponseEventType =
  | "response.created"
  | "response.in_progress"
  | "response.completed"
  | "response.incomplete"
  | "response.failed"
  | "error"
  | "response.output_item.added"
  | "response.output_item.done"
  | "response.content_part.added"
  | "response.content_part.done"
  | "response.output_text.delta"
  | "response.output_text.done"
  | "response.refusal.delta"
  | "response.refusal.done"
  | "response.reasoning_text.delta"
  | "response.reasoning_text.done"
  | "response.reasoning_summary_part.added"
  | "response.reasoning_summary_part.done"
  | "response.reasoning_summary_text.delta"
  | "response.reasoning_summary_text.done"
  | "response.function_call_arguments.delta"
  | "response.function_call_arguments.done";

/** Tells one event. */
export type Emit = (type: ResponseEventType, fields: Record<string, unknown>) => void;

/** How an item stands; as OpenAI has it. */
export type ItemStatus = "in_progress" | "completed" | "incomplete";

/** One item of a response's output, telling its own events as it grows. */
export interface OutputItem {
  readonly closed: boolean;
  /** The item as it is now. */
  json(): Record<string, unknown>;
  /** Tell that nothing more comes. Once. */
  close(status: Exclude<ItemStatus, "in_progress">): void;
  /** Left as it is, without a word: the response failed. */
  abandon(): void;
}
