import { describe, expect, it } from "vitest";
import type { EngineEvent, EngineUsage, TokenLogprob } from "./types.ts";
import { chatWording, completionWording } from "./wording.ts";

const usage: EngineUsage = { input_tokens: 5, output_tokens: 3, cached_tokens: 2 };
const token = (text: string): TokenLogprob => ({
  token: text,
  bytes: [...Buffer.from(text)],
  logprob: -0.5,
  top: [{ token: text, bytes: [...Buffer.from(text)], logprob: -0.5 }],
});
const call = (rest: { name?: string; arguments: string }): EngineEvent => ({
  type: "tool_call",
  choice: 0,
  index: 0,
  ...rest,
});

describe("a local chat in OpenAI's words", () => {
  it("names the role once per choice and ends with the reason", () => {
    const wording = chatWording("m");
    const chunks = (
      [
        { type: "text", choice: 0, text: "Grüß" },
        { type: "text", choice: 1, text: "a" },
        { type: "text", choice: 0, text: " Gott" },
        { type: "finish", choice: 0, reason: "stop" },
      ] as EngineEvent[]
    ).map((event) => wording.chunk(event).choices);
    expect(chunks).toEqual([
      [{ index: 0, delta: { role: "assistant", content: "Grüß" }, logprobs: null, finish_reason: null }],
      [{ index: 1, delta: { role: "assistant", content: "a" }, logprobs: null, finish_reason: null }],
      [{ index: 0, delta: { content: " Gott" }, logprobs: null, finish_reason: null }],
      [{ index: 0, delta: {}, logprobs: null, finish_reason: "stop" }],
    ]);
  });

  it("gives a tool call one id, its name once, and its arguments in pieces", () => {
    const wording = chatWording("m");
    const events = [
      call({ name: "look", arguments: "" }),
      call({ arguments: '{"a":' }),
      call({ arguments: "1}" }),
    ];
    const deltas = events.map((event) => {
      const [choice] = wording.chunk(event).choices as { delta: { tool_calls: unknown[] } }[];
      return choice?.delta.tool_calls[0];
    });
    expect(deltas).toEqual([
      {
        index: 0,
        id: expect.stringMatching(/^call_/),
        type: "function",
        function: { name: "look", arguments: "" },
      },
      { index: 0, function: { arguments: '{"a":' } },
      { index: 0, function: { arguments: "1}" } },
    ]);
    const whole = chatWording("m");
    for (const event of events) whole.take(event);
    whole.take({ type: "finish", choice: 0, reason: "tool_calls" });
    const [choice] = whole.whole(usage).choices as { message: unknown; finish_reason: string }[];
    expect(choice?.finish_reason).toBe("tool_calls");
    expect(choice?.message).toMatchObject({
      content: null,
      tool_calls: [{ type: "function", function: { name: "look", arguments: '{"a":1}' } }],
    });
  });

  it("puts choices in order and keeps reasoning and log-probabilities apart", () => {
    const wording = chatWording("m");
    wording.take({ type: "text", choice: 1, text: "b", logprobs: [token("b")] });
    wording.take({ type: "reasoning", choice: 0, text: "hm" });
    wording.take({ type: "text", choice: 0, text: "a" });
    wording.take({ type: "finish", choice: 1, reason: "length" });
    const answer = wording.whole(usage);
    expect(answer.choices).toMatchObject([
      { index: 0, message: { content: "a", reasoning_content: "hm" }, logprobs: null },
      { index: 1, finish_reason: "length", logprobs: { content: [{ token: "b", logprob: -0.5 }] } },
    ]);
    expect(answer.usage).toEqual({
      prompt_tokens: 5,
      completion_tokens: 3,
      total_tokens: 8,
      prompt_tokens_details: { cached_tokens: 2 },
    });
  });
});

describe("a local completion in OpenAI's words", () => {
  it("repeats the prompt when asked, and counts offsets from the text's beginning", () => {
    const events: EngineEvent[] = [
      { type: "text", choice: 0, text: "ab", logprobs: [token("a"), token("b")] },
      { type: "text", choice: 0, text: "c", logprobs: [token("c")] },
      { type: "finish", choice: 0, reason: "length" },
    ];
    const wording = completionWording("m", () => "Once ");
    for (const event of events) wording.take(event);
    expect(wording.whole(usage).choices).toEqual([
      {
        index: 0,
        text: "Once abc",
        finish_reason: "length",
        logprobs: {
          tokens: ["a", "b", "c"],
          token_logprobs: [-0.5, -0.5, -0.5],
          top_logprobs: [{ a: -0.5 }, { b: -0.5 }, { c: -0.5 }],
          text_offset: [5, 6, 7],
        },
      },
    ]);
    const streamed = completionWording("m", () => "Once ");
    const chunks = events.map((event) => {
      const [choice] = streamed.chunk(event).choices as {
        text: string;
        logprobs: { text_offset: number[] } | null;
      }[];
      return choice;
    });
    expect(chunks.map((choice) => choice?.text).join("")).toBe("Once abc");
    expect(chunks.flatMap((choice) => choice?.logprobs?.text_offset ?? [])).toEqual([5, 6, 7]);
  });
});
