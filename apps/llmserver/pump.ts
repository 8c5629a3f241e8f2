import { isObject, parseForeignJson } from "#platform/json.ts";
import { ApiError } from "./api-error.ts";
import { errorFields } from "./remote/failures.ts";
import type { ReplyStream } from "./reply-stream.ts";
import type { Answer } from "./source.ts";
import type { Tally } from "./tally.ts";

/** No token is longer than this on average; a provider that sends more does not keep to max_tokens. */
const MAX_CHARACTERS_PER_TOKEN = 128;
const SLACK_CHARACTERS = 65_536;

export interface PumpOptions {
  answer: Answer;
  tally: Tally;
  out: ReplyStream;
  wantsUsage: boolean;
  /** Output tokens that were asked for, all choices together. */
  maxTokens: number;
}

/**
 * Pass a stream on event by event, seeing each: usage, errors, whether it ended as it should. `[DONE]` is
 * left to the caller, who settles first.
 * @throws ApiError when the stream breaks, carries an error, or ends before its answer does.
 */
export async function pump(options: PumpOptions): Promise<void> {
  const { answer, tally, out } = options;
  const limit = options.maxTokens * MAX_CHARACTERS_PER_TOKEN + SLACK_CHARACTERS;
  for await (const batch of answer.batches()) {
    let text = "";
    for (const data of batch) {
      if (data === "[DONE]") tally.done = true;
      if (tally.done) break;
      try {
        text += passOn(data, options);
      } catch (error) {
        // What came before the bad event was good, and is charged.
        await out.write(text);
        throw error;
      }
    }
    await out.write(text);
    if (tally.done) break;
    await tally.fold();
    if (tally.characters > limit) {
      throw broken("The provider sent far more than was asked for.", "provider_invalid_answer");
    }
  }
  if (!tally.complete) throw broken("The provider's answer ended too early.", "provider_incomplete");
  answer.finish();
}

function passOn(data: string, { tally, answer, wantsUsage }: PumpOptions): string {
  const event = parseEvent(data);
  if (event.error !== undefined && event.error !== null) {
    throw reportedError(event, answer.redactor);
  }
  tally.take(event);
  let line = data.includes("\n") ? JSON.stringify(event) : data;
  if (!wantsUsage && event.usage !== undefined) {
    const hasChoices = Array.isArray(event.choices) && event.choices.length > 0;
    if (!hasChoices) return "";
    const { usage: _, ...rest } = event;
    line = JSON.stringify(rest);
  }
  return `data: ${answer.redactor.quick(line)}\n\n`;
}

function parseEvent(data: string): Record<string, unknown> {
  try {
    const event: unknown = parseForeignJson(data);
    if (isObject(event)) return event;
  } catch {
    // Told below: half a chunk is what a broken provider leaves.
  }
  throw broken("The provider sent a chunk that is not valid JSON.", "provider_invalid_answer");
}

/** The provider did not answer as one must: it says something about its health. */
export class BrokenAnswer extends ApiError {}

export function broken(message: string, code: string, cause?: unknown): BrokenAnswer {
  return new BrokenAnswer(502, message, {
    code,
    shouldRetry: false,
    ...(cause === undefined ? {} : { cause }),
  });
}

/** The error a provider put where an answer should be, in our envelope and without the key. */
export function reportedError(event: unknown, redactor: Answer["redactor"]): ApiError {
  const told = errorFields(event, redactor);
  return new ApiError(502, `The provider answered: ${told.message ?? "an error"}`, {
    type: told.type ?? "server_error",
    code: told.code ?? "provider_error",
    shouldRetry: false,
  });
}
