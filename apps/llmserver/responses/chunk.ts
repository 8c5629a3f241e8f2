import { isObject } from "#platform/json.ts";

type Json = Record<string, unknown>;

/** What a message of a chat is made of, besides calls. */
export type TextKind = "reasoning" | "text" | "refusal";

/** How probable a token was, in the words both routes share. */
export interface Logprob {
  token: string;
  bytes: number[];
  logprob: number;
  top_logprobs: Omit<Logprob, "top_logprobs">[];
}

/** A piece of a function call; what is unset was not said. */
export interface CallPiece {
  index: number | undefined;
  id: string | undefined;
  name: string | undefined;
  arguments: string;
}

export type Piece = { kind: TextKind; text: string; logprobs: Logprob[] } | { kind: "call"; call: CallPiece };

/** A chunk of a chat completion, or a whole one, as far as it makes sense. */
export interface Chunk {
  pieces: Piece[];
  finishReason: string | undefined;
  /** Output tokens that were reasoning, as the provider counts them. */
  reasoningTokens: number | undefined;
}

/** More calls in one answer are no answer; they are left out. */
export const MAX_CALLS = 128;
/** No name or id of a call is longer; what is, is none. */
const MAX_NAME = 256;
/** No token is. */
const MAX_TOKEN = 1024;
const MAX_TOP_LOGPROBS = 20;

/**
 * Read a chunk somebody else wrote: what is not as it should be is left out. Only the first choice is read; a response
 * has no others.
 */
export function readChunk(chunk: Json): Chunk {
  const choice = listOf(chunk.choices).find(isFirst);
  return {
    pieces: choice === undefined ? [] : readChoice(choice),
    finishReason: typeof choice?.finish_reason === "string" ? choice.finish_reason : undefined,
    reasoningTokens: readReasoningTokens(chunk.usage),
  };
}

function isFirst(choice: unknown): choice is Json {
  return isObject(choice) && (typeof choice.index !== "number" || choice.index === 0);
}

function readChoice(choice: Json): Piece[] {
  const delta = isObject(choice.delta) ? choice.delta : undefined;
  const message = delta ?? choice.message;
  if (!isObject(message)) return [];
  // Some providers send the same reasoning under both names.
  const reasoning = textOf(message.reasoning_content) || textOf(message.reasoning);
  const pieces: Piece[] = [];
  if (reasoning !== "") pieces.push({ kind: "reasoning", text: reasoning, logprobs: [] });
  if (typeof message.content === "string") {
    // Without content they are those of a call, which has no place for them.
    const logprobs = isObject(choice.logprobs) ? readLogprobs(choice.logprobs.content) : [];
    pieces.push({ kind: "text", text: message.content, logprobs });
  }
  const refusal = textOf(message.refusal);
  if (refusal !== "") pieces.push({ kind: "refusal", text: refusal, logprobs: [] });
  for (const [place, call] of listOf(message.tool_calls).slice(0, MAX_CALLS).entries()) {
    // The calls of a whole message are numbered by where they stand.
    if (isObject(call)) pieces.push(readCall(call, delta === undefined ? place : undefined));
  }
  return pieces;
}

function readCall(call: Json, place: number | undefined): Piece {
  const fields = isObject(call.function) ? call.function : {};
  return {
    kind: "call",
    call: {
      index: typeof call.index === "number" ? call.index : place,
      id: nameOf(call.id),
      name: nameOf(fields.name),
      arguments: textOf(fields.arguments),
    },
  };
}

function readLogprobs(content: unknown): Logprob[] {
  return listOf(content).flatMap((entry) => {
    const read = readLogprob(entry);
    if (read === undefined || !isObject(entry)) return [];
    const top = listOf(entry.top_logprobs).slice(0, MAX_TOP_LOGPROBS);
    return [{ ...read, top_logprobs: top.flatMap((other) => readLogprob(other) ?? []) }];
  });
}

function readLogprob(entry: unknown): Omit<Logprob, "top_logprobs"> | undefined {
  if (!isObject(entry)) return undefined;
  const { token, logprob, bytes } = entry;
  if (typeof token !== "string" || token.length > MAX_TOKEN || !Number.isFinite(logprob)) return undefined;
  const given = Array.isArray(bytes) && bytes.length <= 4 * MAX_TOKEN && bytes.every(isByte);
  return { token, bytes: given ? bytes : [...Buffer.from(token)], logprob: Number(logprob) };
}

function readReasoningTokens(usage: unknown): number | undefined {
  if (!isObject(usage) || !isObject(usage.completion_tokens_details)) return undefined;
  const count = usage.completion_tokens_details.reasoning_tokens;
  return Number.isSafeInteger(count) && Number(count) >= 0 ? Number(count) : undefined;
}

function isByte(value: unknown): value is number {
  return Number.isInteger(value) && Number(value) >= 0 && Number(value) <= 255;
}

function listOf(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function nameOf(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" && value.length <= MAX_NAME ? value : undefined;
}
