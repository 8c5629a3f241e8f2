import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { AppError } from "#schemas";
import { ApiError, toApiError } from "./api-error.ts";
import { LiveCalls } from "./calls/live-calls.ts";
import { readUsage, Tally } from "./calls/tally.ts";
import { countRequest, countTokens } from "./calls/tokenizer.ts";
import { mediaParts, parseChatRequest } from "./requests/chat-request.ts";
import { upstreamBody } from "./requests/upstream.ts";

const chunk = (content: string, finish: string | null = null) => ({
  choices: [{ index: 0, delta: { content }, finish_reason: finish }],
});
const noInput = async () => 1000;

describe("tokenizer", () => {
  it("counts as o200k_base does", async () => {
    expect(await countTokens("")).toBe(0);
    expect(await countTokens("hello world")).toBe(2);
    expect(await countTokens("x<|endoftext|>y")).toBeGreaterThan(2);
    expect(await countTokens("\ud800 lone surrogate")).toBeGreaterThan(0);
    const prose = "The quick brown fox jumps over the lazy dog. ".repeat(3000);
    const count = await countTokens(prose);
    expect(Math.abs(count - 30_001)).toBeLessThan(10);
  });

  // Quadratic it would take many minutes, far beyond the time-out.
  it("is not quadratic in hostile text, and lets others run meanwhile", { timeout: 120_000 }, async () => {
    await countTokens("warm");
    let turns = 0;
    let counting = true;
    const others = (async () => {
      for (; counting; turns += 1) await turn();
    })();
    const [blanks, letters] = await Promise.all([
      countTokens(" ".repeat(1_000_000)),
      countTokens("a".repeat(1_000_000)),
    ]);
    counting = false;
    await others;
    expect(blanks).toBeGreaterThan(1000);
    expect(letters).toBeGreaterThan(100_000);
    // Two million characters in slices of some 32,000.
    expect(turns).toBeGreaterThan(25);
  });

  it("counts messages, parts, calls and tools", async () => {
    const plain = await countRequest({ messages: [{ role: "user", content: "hello world" }] });
    expect(plain).toBe(3 + 3 + 1 + 2);
    const parts = [
      { type: "text", text: "hello world" },
      { type: "image_url", image_url: { url: "x" } },
    ];
    expect(await countRequest({ messages: [{ role: "user", content: parts }] })).toBe(plain + 765);
    const tools = [{ type: "function", function: { name: "f" } }];
    expect(
      await countRequest({ messages: [{ role: "user", content: "hello world" }], tools }),
    ).toBeGreaterThan(plain + 5);
    const called = {
      role: "assistant",
      content: null,
      tool_calls: [{ id: "1", function: { name: "f", arguments: "{}" } }],
    };
    expect(await countRequest({ messages: [called] })).toBeGreaterThan(10);
  });
});

describe("usage as told", () => {
  it("is taken when it makes sense, whatever dialect", () => {
    expect(
      readUsage({ prompt_tokens: 5, completion_tokens: 2, prompt_tokens_details: { cached_tokens: 9 } }),
    ).toEqual({
      input_tokens: 5,
      output_tokens: 2,
      cached_tokens: 5,
    });
    expect(
      readUsage({ prompt_tokens: 5, completion_tokens: 2, prompt_cache_hit_tokens: 3 })?.cached_tokens,
    ).toBe(3);
    for (const wrong of [
      null,
      undefined,
      [],
      {},
      { prompt_tokens: -1, completion_tokens: 1 },
      { prompt_tokens: 1.5, completion_tokens: 1 },
      { prompt_tokens: "1", completion_tokens: 1 },
      { prompt_tokens: 1, completion_tokens: 1e12 },
      { prompt_tokens: Number.NaN, completion_tokens: 1 },
    ]) {
      expect(readUsage(wrong)).toBeUndefined();
    }
  });
});

describe("tally", () => {
  it("knows a whole answer from a part of one", () => {
    const tally = new Tally();
    expect(tally.started).toBe(false);
    tally.take({ choices: [{ index: 0, delta: { role: "assistant" } }] });
    expect([tally.started, tally.complete]).toEqual([true, false]);
    tally.take({ choices: [{ index: 1, delta: { content: "b" } }] });
    tally.take({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }] });
    expect(tally.finished).toBe(false);
    tally.take({ choices: [{ index: 1, delta: {}, finish_reason: "length" }] });
    expect([tally.finished, tally.complete]).toEqual([true, true]);
    const done = new Tally();
    done.done = true;
    expect(done.complete).toBe(false);
  });

  it("counts every kind of output, and survives odd shapes", async () => {
    const tally = new Tally();
    tally.take({
      choices: [
        { delta: { content: "a", reasoning_content: "b", reasoning: "c", refusal: "d" } },
        {
          index: 1,
          delta: {
            tool_calls: [{ function: { name: "f", arguments: "{}" } }, null],
            function_call: { name: "g" },
          },
        },
        null,
        { index: 2, delta: "x" },
      ],
      usage: "none",
    });
    tally.take({ choices: "x" });
    expect(tally.characters).toBe(8);
    expect(await tally.usage(noInput)).toMatchObject({ input_tokens: 1000, counted_by: "tokenizer" });
  });

  it("adds what came after the last figures of a stream that broke", async () => {
    const tally = new Tally();
    tally.take({ ...chunk("one two"), usage: { prompt_tokens: 7, completion_tokens: 2 } });
    expect(await tally.usage(noInput)).toMatchObject({ output_tokens: 2, counted_by: "provider" });
    tally.take(chunk(" three four"));
    expect(tally.hasUsage).toBe(false);
    expect(await tally.usage(noInput)).toEqual({
      input_tokens: 7,
      output_tokens: 4,
      cached_tokens: 0,
      counted_by: "tokenizer",
    });
  });

  it("holds no more text than it must", async () => {
    const tally = new Tally();
    const text = "The quick brown fox jumps over the lazy dog. ".repeat(200);
    for (let index = 0; index < 60; index += 1) {
      tally.take(chunk(text));
      await tally.fold();
    }
    const { output_tokens } = await tally.usage(noInput);
    expect(Math.abs(output_tokens - 60 * 2001)).toBeLessThan(200);
    tally.take({ choices: [], usage: { prompt_tokens: 1, completion_tokens: 120_000 } });
    expect(await tally.usage(noInput)).toMatchObject({ output_tokens: 120_000, counted_by: "provider" });
  });
});

describe("a provider that says it used too much to be recorded", () => {
  it("is recorded with as much as can be: what cannot be settled would cost nothing", async () => {
    const tally = new Tally();
    tally.take({ choices: [], usage: { prompt_tokens: 1, completion_tokens: 2_147_483_647 } });
    tally.take({ choices: [{ index: 0, delta: { content: "and some more" } }] });
    expect(await tally.usage(async () => 1)).toMatchObject({ output_tokens: 2_147_483_647 });
  });
});

describe("requests", () => {
  const base = { model: "m", messages: [{ role: "user", content: "x" }] };

  it("limits tokens under the name the client or the provider uses", () => {
    const limited = (extra: object, base_url: string) => {
      const request = parseChatRequest({ ...base, ...extra }, 100);
      return upstreamBody(request, request.maxTokens, { base_url, trusted: false });
    };
    expect(limited({}, "https://api.openai.com/v1")).toMatchObject({ max_completion_tokens: 100 });
    expect(limited({}, "https://other.example/v1")).toMatchObject({ max_tokens: 100 });
    expect(limited({ max_tokens: 7, max_completion_tokens: 9 }, "https://x.example")).toMatchObject({
      max_tokens: 7,
      max_completion_tokens: 7,
    });
    expect(
      limited({ max_tokens: null, stream: true, stream_options: { x: 1 } }, "https://x.example"),
    ).toMatchObject({
      max_tokens: 100,
      stream_options: { x: 1, include_usage: true },
    });
  });

  it("with the server's key ask for an answer and nothing else", () => {
    const wanted = { temperature: 0.5, tools: [{ type: "function" }], stream: true, max_tokens: 5 };
    const more = {
      models: ["dear"],
      fallbacks: ["dear"],
      service_tier: "priority",
      api_base: "http://x",
      plugins: [],
    };
    const request = parseChatRequest({ ...base, ...wanted, ...more }, 100);
    const base_url = "https://x.example";
    const usage = { stream_options: { include_usage: true } };
    expect(upstreamBody(request, 5, { base_url, trusted: true })).toEqual({ ...base, ...wanted, ...usage });
    expect(upstreamBody(request, 5, { base_url, trusted: false })).toMatchObject(more);
    const search = parseChatRequest({ ...base, tools: [{ type: "web_search" }] }, 100);
    expect(() => upstreamBody(search, 5, { base_url, trusted: true })).toThrow(
      "Tools that the provider runs",
    );
  });

  it("counts parts that are no text", () => {
    expect(
      mediaParts([{ role: "user", content: [{ type: "text", text: "x" }, { type: "image_url" }, null] }]),
    ).toBe(2);
    expect(mediaParts([{ role: "user", content: "x" }])).toBe(0);
  });
});

describe("errors", () => {
  it("take OpenAI's names and tell nothing that was not meant to be told", () => {
    expect(toApiError(new Error("secret detail")).envelope().error).toEqual({
      message: expect.not.stringContaining("secret"),
      type: "server_error",
      param: null,
      code: "internal_error",
    });
    const limited = toApiError(new AppError("RateLimited", "Too many.", { retry_after_seconds: 1.2 }));
    expect(limited.status).toBe(429);
    expect(limited.headers()).toEqual({ "retry-after": "2" });
    expect(toApiError(new AppError("Unauthenticated", "No.")).headers()).toEqual({
      "www-authenticate": "Bearer",
    });
    const own = new ApiError(400, "x", { param: "n" });
    expect(toApiError(own)).toBe(own);
  });
});

describe("live calls", () => {
  it("ends what is left after the grace, and takes nothing more", async () => {
    const live = new LiveCalls();
    const ended: string[] = [];
    const call = live.run(async (abort) => {
      await new Promise((resolve) => abort.signal.addEventListener("abort", resolve));
      ended.push(String(abort.signal.reason.message));
    });
    expect(live.size).toBe(1);
    await live.close(10);
    await call;
    expect(ended).toEqual(["The server is shutting down."]);
    await expect(live.run(async () => undefined)).rejects.toMatchObject({ status: 503 });
    expect(live.size).toBe(0);
  });
});
