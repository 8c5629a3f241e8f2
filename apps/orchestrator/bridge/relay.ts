import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { createParser } from "eventsource-parser";
import { asObject, parseForeignJson } from "#platform/json.ts";
import type { TaskError } from "#schemas";
import { DeltaBatch } from "./delta-batch.ts";
import { FINAL_ERROR, fromErrorObject, fromThrown, modelError } from "./model-error.ts";

/** A single event larger than this is no answer of a model. */
const MAX_EVENT_CHARS = 8 * 1024 * 1024;

export interface RelayOptions {
  /** Pause between two writes after the first, ms: every wake-up of opencode costs more than the bytes. */
  readonly flushMs: number;
  /** Something came from the model. */
  onActivity(): void;
}

/** How an answer ended: by the model's own reason, or by a failure. */
export interface RelayOutcome {
  readonly finish?: string;
  readonly error?: TaskError;
}

/**
 * Pass a streamed answer on: the first event at once, later ones bundled. An answer that breaks off, or ends
 * without saying why, becomes an error event: opencode would ask again and again without a pause otherwise.
 * Ends the response in every case. @throws nothing; a response closed by its reader ends it quietly.
 */
export async function relayAnswer(
  body: AsyncIterable<Uint8Array>,
  response: ServerResponse,
  options: RelayOptions,
): Promise<RelayOutcome> {
  // A reader that goes away is no failure of ours; without this the write after it would be.
  response.on("error", () => undefined);
  response.writeHead(200, { "content-type": "text/event-stream", connection: "close" });
  const batch = new DeltaBatch((text) => void response.write(text), options.flushMs);
  const answer = new Answer(batch);
  try {
    await readEvents(body, answer, response, options);
  } catch (error) {
    answer.fail(fromThrown(error, true));
  } finally {
    batch.flush();
  }
  const outcome = answer.outcome();
  response.write(
    outcome.error === undefined ? "data: [DONE]\n\n" : `data: ${JSON.stringify(FINAL_ERROR)}\n\n`,
  );
  response.end();
  return outcome;
}

async function readEvents(
  body: AsyncIterable<Uint8Array>,
  answer: Answer,
  response: ServerResponse,
  options: RelayOptions,
): Promise<void> {
  const decoder = new TextDecoder();
  let sinceEvent = 0;
  const parser = createParser({
    onEvent: ({ data }) => {
      sinceEvent = 0;
      answer.take(data);
    },
  });
  for await (const chunk of body) {
    options.onActivity();
    sinceEvent += chunk.length;
    if (sinceEvent > MAX_EVENT_CHARS) throw new RangeError("an event without end");
    parser.feed(decoder.decode(chunk, { stream: true }));
    if (answer.failed || response.destroyed) return;
    if (response.writableNeedDrain) await drained(response);
  }
}

/** Resolves when the reader has taken what was written, or has gone; leaves no listener behind. */
async function drained(response: ServerResponse): Promise<void> {
  const over = new AbortController();
  const { signal } = over;
  try {
    await Promise.race([once(response, "drain", { signal }), once(response, "close", { signal })]);
  } finally {
    over.abort();
  }
}

/** What is known of an answer while it streams. */
class Answer {
  readonly #batch: DeltaBatch;
  #finish: string | undefined;
  #error: TaskError | undefined;

  constructor(batch: DeltaBatch) {
    this.#batch = batch;
  }

  get failed(): boolean {
    return this.#error !== undefined;
  }

  take(data: string): void {
    if (data === "[DONE]" || this.failed) return;
    const event = asObject(parseForeignJson(data));
    if (event === undefined) throw new SyntaxError("not an object");
    if (event.error !== undefined && event.error !== null) {
      this.fail(fromErrorObject(event.error));
      return;
    }
    const choice = Array.isArray(event.choices) ? asObject(event.choices[0]) : undefined;
    if (typeof choice?.finish_reason === "string") this.#finish = choice.finish_reason;
    this.#batch.add(event, data.length);
  }

  /** Keeps the first failure, and none once the model has finished. */
  fail(error: TaskError): void {
    if (this.#finish === undefined) this.#error ??= error;
  }

  outcome(): RelayOutcome {
    if (this.#error !== undefined) return { error: this.#error };
    if (this.#finish !== undefined) return { finish: this.#finish };
    return { error: modelError("ProviderError", "The model's answer ended before it was complete.") };
  }
}
