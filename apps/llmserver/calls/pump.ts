import { isObject, parseForeignJson } from "#platform/json.ts";
import { ApiError } from "../api-error.ts";
import { errorFields } from "../remote/failures.ts";
import type { ModelRequest } from "../requests/request.ts";
import type { Answer } from "../sources/source.ts";
import type { Dialect } from "./dialect.ts";
import type { Frame, Sink } from "./sink.ts";
import type { Tally } from "./tally.ts";

/** No token is longer than this on average; a provider that sends more does not keep to max_tokens. */
const MAX_CHARACTERS_PER_TOKEN = 128;
const SLACK_CHARACTERS = 65_536;

export interface PumpOptions {
  answer: Answer;
  tally: Tally;
  out: Sink;
  dialect: Dialect;
  /** Output tokens that were asked for, all choices together. */
  maxTokens: number;
}

/**
 * Pass a stream on event by event, seeing each: usage, errors, whether it ended as it should. The last words are
 * left to the caller, who settles first.
 * @throws ApiError when the stream breaks, carries an error, or ends before its answer does.
 */
export async function pump(options: PumpOptions): Promise<void> {
  const { answer, tally, out } = options;
  const limit = options.maxTokens * MAX_CHARACTERS_PER_TOKEN + SLACK_CHARACTERS;
  for await (const batch of answer.batches()) {
    const frames: Frame[] = [];
    for (const data of batch) {
      if (data === "[DONE]") tally.done = true;
      if (tally.done) break;
      try {
        frames.push(...passOn(data, options));
      } catch (error) {
        // What came before the bad event was good, and is charged.
        await out.send(frames);
        throw error;
      }
    }
    await out.send(frames);
    if (tally.done) break;
    await tally.fold();
    if (tally.characters > limit) {
      throw broken("The provider sent far more than was asked for.", "provider_invalid_answer");
    }
  }
  if (!tally.complete) throw broken("The provider's answer ended too early.", "provider_incomplete");
  answer.finish();
}

function passOn(data: string, { tally, answer, dialect }: PumpOptions): Frame[] {
  const event = parseEvent(data);
  if (event.error !== undefined && event.error !== null) {
    throw reportedError(event, answer.redactor);
  }
  tally.take(event);
  const line = data.includes("\n") ? JSON.stringify(event) : data;
  const frames = dialect.event(event, line);
  for (const frame of frames) frame.data = answer.redactor.quick(frame.data);
  return frames;
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

/**
 * Arrays, objects and commas of a whole answer: 8192 tokens with 20 alternatives each are 1.4 million, and some 0.8 s of
 * parsing at the worst.
 */
const MAX_TEXT_PARTS = 1_500_000;
/** Numbers cost little to read, lists of them much: as many lists as vectors were asked for, and what is around. */
const MAX_DIMENSIONS = 16_384;
const LISTS_AROUND = 100;

/** @throws SyntaxError for what is no JSON, or has more parts than an answer to that request has. */
function parseAnswer(text: string, request: ModelRequest, answer: Answer): unknown {
  // Written by ourselves a moment ago.
  if (answer.used !== undefined) return JSON.parse(text);
  if (request.kind !== "embedding") return parseForeignJson(text, undefined, { parts: MAX_TEXT_PARTS });
  const vectors = request.inputs.length;
  if (opened(text) > LISTS_AROUND + 2 * vectors) throw new SyntaxError("more lists than vectors");
  return parseForeignJson(text, undefined, { parts: LISTS_AROUND + vectors * MAX_DIMENSIONS });
}

/** Brackets that open a list or an object; those in texts count as well. */
function opened(text: string): number {
  let count = 0;
  for (let at = 0; at < text.length; at += 1) if ((text.charCodeAt(at) | 0x20) === 0x7b) count += 1;
  return count;
}

/** What an answer of each kind has, and what it is called. */
const WHOLE = {
  chat: ["choices", "no chat completion"],
  completion: ["choices", "no completion"],
  embedding: ["data", "no list of embeddings"],
} as const satisfies Record<ModelRequest["kind"], readonly [list: string, complaint: string]>;

/** A whole answer, read. @throws ApiError when it is none, or an error. */
export function parseWhole(text: string, request: ModelRequest, answer: Answer): Record<string, unknown> {
  const [list, complaint] = WHOLE[request.kind];
  let event: unknown;
  try {
    event = parseAnswer(text, request, answer);
  } catch {
    throw broken("The provider's answer is not valid JSON.", "provider_invalid_answer");
  }
  if (isObject(event) && Array.isArray(event[list])) return event;
  if (isObject(event) && event.error !== undefined) throw reportedError(event, answer.redactor);
  throw broken(`The provider's answer is ${complaint}.`, "provider_invalid_answer");
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
function reportedError(event: unknown, redactor: Answer["redactor"]): ApiError {
  const told = errorFields(event, redactor);
  return new ApiError(502, `The provider answered: ${told.message ?? "an error"}`, {
    type: told.type ?? "server_error",
    code: told.code ?? "provider_error",
    shouldRetry: false,
  });
}
