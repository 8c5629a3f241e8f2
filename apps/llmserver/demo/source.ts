import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { ApiError } from "../api-error.ts";
import { mostInputTokens } from "../calls/count-input.ts";
import { countRequest, countTokens } from "../calls/tokenizer.ts";
import type { ChatRequest } from "../requests/chat-request.ts";
import type { ModelRequest } from "../requests/request.ts";
import type { Answer, BeginOptions, Source } from "../sources/source.ts";
import { type DemoReply, planReply } from "./plan.ts";

/** As a real model of middling speed would stream, ms per word. */
const WORD_DELAY_MS = 10;
/** Characters of a tool call's arguments per chunk. */
const ARGUMENT_PIECE = 40;

/**
 * The scripted model as a source of answers: same chunks, same usage, same way to be cancelled.
 * @throws ApiError for what it has no script for.
 */
export function demoSource(request: ModelRequest): Source {
  if (request.kind !== "chat") {
    throw new ApiError(400, "The demo model answers chats only.", {
      param: "model",
      code: "unsupported_value",
    });
  }
  if (request.choices > 1) {
    throw new ApiError(400, "The demo model gives one choice only.", {
      param: "n",
      code: "unsupported_value",
    });
  }
  return {
    inputTokens: mostInputTokens(request),
    countInput: () => countRequest(request.body),
    begin: (options) => begin(request, options),
    [Symbol.dispose]() {},
  };
}

async function begin(request: ChatRequest, { maxTokens, abort }: BeginOptions): Promise<Answer> {
  const reply = await limit(planReply(request.body), maxTokens);
  const input = await countRequest(request.body);
  const usage = {
    prompt_tokens: input,
    completion_tokens: reply.tokens,
    total_tokens: input + reply.tokens,
    prompt_tokens_details: { cached_tokens: 0 },
  };
  const frame = {
    id: `chatcmpl-${randomUUID()}`,
    created: Math.floor(Date.now() / 1000),
    model: request.model,
  };
  return {
    redactor: { text: (text) => text, quick: (text) => text },
    batches: () => stream(reply, frame, usage, abort.signal),
    async text() {
      await sleep(WORD_DELAY_MS * words(reply.text).length, undefined, { signal: abort.signal });
      const message = {
        role: "assistant",
        content: reply.text,
        ...(reply.call && { tool_calls: [wireCall(reply.call)] }),
      };
      const choice = { index: 0, message, logprobs: null, finish_reason: reply.finish };
      return JSON.stringify({ ...frame, object: "chat.completion", choices: [choice], usage });
    },
    finish() {},
    report() {},
    [Symbol.dispose]() {},
  };
}

interface Limited extends DemoReply {
  tokens: number;
  finish: "stop" | "tool_calls" | "length";
}

/** Keep to the tokens allowed: half a tool call is worth nothing, so only text is ever cut. */
async function limit(reply: DemoReply, maxTokens: number): Promise<Limited> {
  const { text, call } = reply;
  const spoken = await countTokens(text);
  const called = call === undefined ? 0 : await countTokens(call.name + JSON.stringify(call.arguments));
  if (spoken + called <= maxTokens) {
    return { ...reply, tokens: spoken + called, finish: call === undefined ? "stop" : "tool_calls" };
  }
  let pieces = words(text).slice(0, maxTokens);
  while (pieces.length > 0 && (await countTokens(pieces.join(""))) > maxTokens) pieces = pieces.slice(0, -1);
  const cut = pieces.join("");
  return { text: cut, tokens: await countTokens(cut), finish: "length" };
}

function words(text: string): string[] {
  return text.match(/\S+\s*/g) ?? [];
}

function wireCall(call: NonNullable<DemoReply["call"]>) {
  const args = JSON.stringify(call.arguments);
  return { id: `call_${randomUUID()}`, type: "function", function: { name: call.name, arguments: args } };
}

async function* stream(
  reply: Limited,
  frame: Record<string, unknown>,
  usage: unknown,
  signal: AbortSignal,
): AsyncGenerator<string[]> {
  const chunk = (delta: unknown, finish_reason: string | null = null) => [
    JSON.stringify({
      ...frame,
      object: "chat.completion.chunk",
      choices: [{ index: 0, delta, logprobs: null, finish_reason }],
    }),
  ];
  yield chunk({ role: "assistant", content: "" });
  for (const word of words(reply.text)) {
    await sleep(WORD_DELAY_MS, undefined, { signal });
    yield chunk({ content: word });
  }
  if (reply.call !== undefined) {
    const { function: called, ...call } = wireCall(reply.call);
    yield chunk({ tool_calls: [{ index: 0, ...call, function: { name: called.name, arguments: "" } }] });
    for (let at = 0; at < called.arguments.length; at += ARGUMENT_PIECE) {
      await sleep(WORD_DELAY_MS, undefined, { signal });
      const piece = called.arguments.slice(at, at + ARGUMENT_PIECE);
      yield chunk({ tool_calls: [{ index: 0, function: { arguments: piece } }] });
    }
  }
  yield chunk({}, reply.finish);
  yield [JSON.stringify({ ...frame, object: "chat.completion.chunk", choices: [], usage }), "[DONE]"];
}
