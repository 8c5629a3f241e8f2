import { randomUUID } from "node:crypto";
import type { EngineEvent, EngineUsage, FinishReason, TokenLogprob } from "./types.ts";

/** OpenAI's words for what an engine reports: chunks of a stream, or the whole of an answer. */
export interface Wording {
  /** The chunk for one event. */
  chunk(event: EngineEvent): Record<string, unknown>;
  /** The last chunk: figures, no choices. */
  usage(usage: EngineUsage): Record<string, unknown>;
  /** Collects for `whole`. */
  take(event: EngineEvent): void;
  whole(usage: EngineUsage): Record<string, unknown>;
}

interface Collected {
  text: string;
  reasoning: string;
  calls: { id: string; name: string; arguments: string }[];
  logprobs: TokenLogprob[] | undefined;
  reason: FinishReason;
}

/** The choices of one answer as they grow, and the ids given to their tool calls. */
class Choices {
  readonly #choices = new Map<number, Collected>();

  of(index: number): Collected {
    const known = this.#choices.get(index);
    if (known !== undefined) return known;
    const fresh: Collected = { text: "", reasoning: "", calls: [], logprobs: undefined, reason: "stop" };
    this.#choices.set(index, fresh);
    return fresh;
  }

  take(event: EngineEvent): void {
    const choice = this.of(event.choice);
    if (event.type === "reasoning") choice.reasoning += event.text;
    if (event.type === "finish") choice.reason = event.reason;
    if (event.type === "tool_call") this.call(event).arguments += event.arguments;
    if (event.type !== "text") return;
    choice.text += event.text;
    if (event.logprobs !== undefined) choice.logprobs = [...(choice.logprobs ?? []), ...event.logprobs];
  }

  /** The call an event belongs to, begun by its first event. */
  call({ choice, index, name }: Extract<EngineEvent, { type: "tool_call" }>): Collected["calls"][number] {
    const { calls } = this.of(choice);
    calls[index] ??= {
      id: `call_${randomUUID().replaceAll("-", "").slice(0, 24)}`,
      name: name ?? "",
      arguments: "",
    };
    return calls[index];
  }

  sorted(): [number, Collected][] {
    return [...this.#choices].sort(([a], [b]) => a - b);
  }
}

export function chatWording(model: string): Wording {
  const frame = frameOf("chatcmpl", model);
  const choices = new Choices();
  const begun = new Set<number>();
  const delta = (event: EngineEvent): Record<string, unknown> => {
    const role = begun.has(event.choice) ? {} : { role: "assistant" };
    begun.add(event.choice);
    if (event.type === "text") return { ...role, content: event.text };
    if (event.type === "reasoning") return { ...role, reasoning_content: event.text };
    if (event.type === "finish") return role;
    const { id, name } = choices.call(event);
    const head = event.name === undefined ? {} : { id, type: "function" };
    const named = event.name === undefined ? {} : { name };
    return {
      ...role,
      tool_calls: [{ index: event.index, ...head, function: { ...named, arguments: event.arguments } }],
    };
  };
  return {
    chunk: (event) => ({
      ...frame,
      object: "chat.completion.chunk",
      choices: [
        {
          index: event.choice,
          delta: delta(event),
          logprobs: event.type === "text" ? logprobsOf(event.logprobs) : null,
          finish_reason: event.type === "finish" ? event.reason : null,
        },
      ],
    }),
    usage: (usage) => ({ ...frame, object: "chat.completion.chunk", choices: [], usage: usageOf(usage) }),
    take: (event) => choices.take(event),
    whole: (usage) => ({
      ...frame,
      object: "chat.completion",
      choices: choices.sorted().map(([index, choice]) => ({
        index,
        message: messageOf(choice),
        logprobs: logprobsOf(choice.logprobs),
        finish_reason: choice.reason,
      })),
      usage: usageOf(usage),
    }),
  };
}

/** `echo`: what stands before the text of each choice. */
export function completionWording(model: string, echo: (choice: number) => string): Wording {
  const frame = { ...frameOf("cmpl", model), object: "text_completion" };
  const choices = new Choices();
  const begun = new Set<number>();
  /** Characters of each choice before the next event: the old format counts from the text's beginning. */
  const offsets = new Map<number, number>();
  const first = (choice: number) => {
    if (begun.has(choice)) return "";
    begun.add(choice);
    return echo(choice);
  };
  return {
    chunk(event) {
      const before = first(event.choice);
      const text = before + (event.type === "text" ? event.text : "");
      const offset = offsets.get(event.choice) ?? 0;
      offsets.set(event.choice, offset + text.length);
      const logprobs = event.type === "text" ? legacyLogprobs(event.logprobs, offset + before.length) : null;
      const finish_reason = event.type === "finish" ? event.reason : null;
      return { ...frame, choices: [{ index: event.choice, text, logprobs, finish_reason }] };
    },
    usage: (usage) => ({ ...frame, choices: [], usage: usageOf(usage) }),
    take: (event) => choices.take(event),
    whole: (usage) => ({
      ...frame,
      choices: choices.sorted().map(([index, { text, logprobs, reason }]) => {
        const before = echo(index);
        return {
          index,
          text: before + text,
          logprobs: legacyLogprobs(logprobs, before.length),
          finish_reason: reason,
        };
      }),
      usage: usageOf(usage),
    }),
  };
}

export function usageOf({ input_tokens, output_tokens, cached_tokens }: EngineUsage) {
  return {
    prompt_tokens: input_tokens,
    completion_tokens: output_tokens,
    total_tokens: input_tokens + output_tokens,
    prompt_tokens_details: { cached_tokens },
  };
}

function frameOf(prefix: string, model: string) {
  const id = `${prefix}-${randomUUID().replaceAll("-", "")}`;
  return { id, created: Math.floor(Date.now() / 1000), model, system_fingerprint: null };
}

function messageOf({ text, reasoning, calls }: Collected): Record<string, unknown> {
  const tool_calls = calls.map(({ id, name, arguments: args }) => ({
    id,
    type: "function",
    function: { name, arguments: args },
  }));
  return {
    role: "assistant",
    content: text === "" && calls.length > 0 ? null : text,
    refusal: null,
    ...(reasoning === "" ? {} : { reasoning_content: reasoning }),
    ...(calls.length === 0 ? {} : { tool_calls }),
  };
}

function logprobsOf(tokens: readonly TokenLogprob[] | undefined) {
  if (tokens === undefined) return null;
  const content = tokens.map(({ token, bytes, logprob, top }) => ({
    token,
    bytes,
    logprob,
    top_logprobs: top,
  }));
  return { content, refusal: null };
}

/** The four parallel lists of the old completions. */
function legacyLogprobs(tokens: readonly TokenLogprob[] | undefined, from: number) {
  if (tokens === undefined) return null;
  let at = from;
  const text_offset = tokens.map(({ token }) => {
    at += token.length;
    return at - token.length;
  });
  return {
    tokens: tokens.map(({ token }) => token),
    token_logprobs: tokens.map(({ logprob }) => logprob),
    top_logprobs: tokens.map(({ top }) =>
      Object.fromEntries(top.map(({ token, logprob }) => [token, logprob])),
    ),
    text_offset,
  };
}
