import type { ApiError } from "../api-error.ts";
import type { Frame } from "./sink.ts";
import type { Usage } from "./tally.ts";

type Json = Record<string, unknown>;

/** How a route words a stream and a whole answer. Underneath, all of them are what the source gave. */
export interface Dialect {
  /** One event of the source: as it was read, and its text on one line. */
  event(event: Json, line: string): Frame[];
  /** The end of an answer that came whole; it has been charged. */
  end(usage: Usage): Frame[];
  /** The end of one that did not. */
  fail(error: ApiError): Frame[];
  /** An answer that is no stream: as it was read, and its text. */
  whole(answer: Json, text: string, usage: Usage): string;
}

/** OpenAI's own wording, which is the source's: passed on as it is. */
export function plainDialect({ wantsUsage }: { wantsUsage: boolean }): Dialect {
  return {
    event: (event, line) => {
      if (wantsUsage || event.usage === undefined) return [{ data: line }];
      // We always ask for it; the client did not.
      const hasChoices = Array.isArray(event.choices) && event.choices.length > 0;
      if (!hasChoices) return [];
      const { usage: _, ...rest } = event;
      return [{ data: JSON.stringify(rest) }];
    },
    end: () => [{ data: "[DONE]" }],
    // Without [DONE]: a broken answer must not look like a whole one.
    fail: (error) => [{ data: JSON.stringify(error.envelope()) }],
    whole: (_answer, text) => text,
  };
}
