import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { chat, startTestEngine, type TestModel, whole } from "#tests/support/engines.ts";
import { SCRIPTED } from "#tests/support/gguf/index.ts";
import type { FunctionTool, Message } from "./types.ts";

let model: TestModel;
beforeAll(async () => {
  model = await startTestEngine("tiny-scripted");
});
afterAll(() => model[Symbol.asyncDispose]());

const signal = new AbortController().signal;
const weather: FunctionTool = {
  name: "get_weather",
  description: "The weather of a city",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};
const news: FunctionTool = { name: "get_news" };
const tools = [weather, news];
const schema = {
  type: "object",
  properties: { name: { type: "string" }, size: { type: "integer" } },
  required: ["name", "size"],
  additionalProperties: false,
};

describe("a chat with a local model", () => {
  it("knows what it is", () => {
    expect(model.info).toMatchObject({
      architecture: "llama",
      kind: "chat",
      context_size: 1024,
      sequences: 4,
      threads: 1,
      chat_template: true,
    });
    expect(model.info.vocabulary).toBeGreaterThan(256);
  });

  it("answers as its weights say, with exact figures", async () => {
    const { choices, usage } = await whole(model, chat("Hi there"));
    expect(choices[0]).toMatchObject({ text: SCRIPTED.plain, finish: "stop", calls: [] });
    expect(usage.output_tokens).toBe(9);
    expect(usage.input_tokens).toBe(await model.count(chat("Hi there"), signal));
  });

  it("the same question costs the same and is found in the context", async () => {
    const first = await whole(model, chat("How are you today, my dear little model?"));
    const second = await whole(model, chat("How are you today, my dear little model?"));
    expect(second.choices).toEqual(first.choices);
    expect(second.usage).toEqual({ ...first.usage, cached_tokens: first.usage.input_tokens - 1 });
  });

  it("a second turn finds the first one's tokens evaluated", async () => {
    const messages: Message[] = [{ role: "user", content: "Tell me who you are, please, in a few words." }];
    const first = await whole(model, chat("", { messages }));
    messages.push(
      { role: "assistant", content: first.choices[0]?.text },
      { role: "user", content: "And now?" },
    );
    const second = await whole(model, chat("", { messages }));
    expect(second.usage.cached_tokens).toBeGreaterThanOrEqual(first.usage.input_tokens);
    expect(second.usage.cached_tokens).toBeLessThan(second.usage.input_tokens);
  });

  it("stops before stop strings, wherever the tokens' borders are", async () => {
    const { choices } = await whole(model, chat("Hi", { stop: ["iny te", "nothing of it"] }));
    expect(choices[0]).toMatchObject({ text: "Hello! I am a t", finish: "stop" });
  });

  it("ends after max_tokens and says so", async () => {
    const { choices, usage } = await whole(model, chat("Hi", { max_tokens: 4 }));
    expect(choices[0]).toMatchObject({ text: "Hello! I am", finish: "length" });
    expect(usage.output_tokens).toBe(4);
  });

  it("gives as many choices as asked for, more than it has sequences too, the prompt counted once", async () => {
    const { choices, usage } = await whole(
      model,
      chat("Hi", { n: 6, sampling: { temperature: 0.7, seed: 1 } }),
    );
    expect(choices.map(({ text, finish }) => ({ text, finish }))).toEqual(
      Array.from({ length: 6 }, () => ({ text: SCRIPTED.plain, finish: "stop" })),
    );
    expect(usage).toMatchObject({
      input_tokens: await model.count(chat("Hi"), signal),
      output_tokens: 6 * 9,
    });
  });

  it("refuses what it cannot read, naming it", async () => {
    const image = [{ type: "image_url", image_url: { url: "https://example.com/a.png" } }];
    await expect(
      whole(model, chat("", { messages: [{ role: "user", content: image }] })),
    ).rejects.toMatchObject({
      status: 400,
      options: { param: "messages[0].content" },
    });
    await expect(model.count(chat("", { messages: [] }), signal)).rejects.toMatchObject({ status: 400 });
    const unknown = chat("Hi", { sampling: { logit_bias: { 99999999: 5 } } });
    await expect(whole(model, unknown)).rejects.toMatchObject({
      status: 400,
      options: { param: "logit_bias" },
    });
  });
});

describe("tools of a local model", () => {
  it("are called, with arguments by their schema, in pieces that make JSON", async () => {
    const asked = chat("How is the weather?", { tools: [weather] });
    const { choices, usage } = await whole(model, asked);
    expect(choices[0]?.calls[0]?.name).toBe(SCRIPTED.toolName);
    expect(JSON.parse(choices[0]?.calls[0]?.arguments ?? "")).toEqual(JSON.parse(SCRIPTED.toolArguments));
    expect(choices[0]).toMatchObject({ text: "", finish: "tool_calls", calls: { length: 1 } });
    expect(usage.input_tokens).toBe(await model.count(asked, signal));
  });

  it("one call only, when more are not wanted", async () => {
    const { choices } = await whole(
      model,
      chat("Weather?", { tools: [weather], parallel_tool_calls: false }),
    );
    expect(choices[0]?.calls).toEqual([
      { name: "get_weather", arguments: expect.stringMatching(/^\{.*\}$/) },
    ]);
  });

  it("results are answered", async () => {
    const messages: Message[] = [
      { role: "user", content: "How is the weather?" },
      {
        role: "assistant",
        content: null,
        tool_calls: [
          { id: "a", type: "function", function: { name: "get_weather", arguments: '{"city":"Rome"}' } },
        ],
      },
      { role: "tool", tool_call_id: "a", content: "sunny" },
    ];
    const { choices } = await whole(model, chat("", { messages, tools }));
    expect(choices[0]).toMatchObject({ text: SCRIPTED.afterTool, finish: "stop", calls: [] });
  });

  it("none are called when none may be", async () => {
    const { choices } = await whole(model, chat("Weather?", { tools, tool_choice: "none" }));
    expect(choices[0]).toMatchObject({ text: SCRIPTED.plain, calls: [] });
  });

  it("one is called when one must be, whatever the model would have said", async () => {
    const { choices } = await whole(model, chat("Hi", { tools, tool_choice: "required" }));
    expect(choices[0]?.calls.length).toBeGreaterThan(0);
    expect(["get_weather", "get_news"]).toContain(choices[0]?.calls[0]?.name);
    expect(choices[0]?.finish).toBe("tool_calls");
  });

  it("the very one is called that is named, also one without parameters", async () => {
    const { choices } = await whole(model, chat("Hi", { tools, tool_choice: { name: "get_news" } }));
    expect(choices[0]?.calls[0]).toEqual({ name: "get_news", arguments: "{}" });
    expect(new Set(choices[0]?.calls.map(({ name }) => name))).toEqual(new Set(["get_news"]));
  });

  it("do not go together with JSON as the answer's form", async () => {
    const request = chat("Hi", { tools, response_format: { type: "json_object" } });
    await expect(whole(model, request)).rejects.toMatchObject({
      status: 400,
      options: { param: "response_format" },
    });
  });
});

describe("JSON from a local model", () => {
  it("is an object when one is asked for, with nothing around it", async () => {
    const { choices } = await whole(model, chat("Hi", { response_format: { type: "json_object" } }));
    expect(choices[0]?.finish).toBe("stop");
    expect(JSON.parse(choices[0]?.text ?? "")).toBeTypeOf("object");
    expect(choices[0]?.text).toBe(choices[0]?.text.trim());
  });

  it("keeps to its schema", async () => {
    const { choices } = await whole(model, chat("Hi", { response_format: { type: "json_schema", schema } }));
    expect(JSON.parse(choices[0]?.text ?? "")).toEqual({
      name: expect.any(String),
      size: expect.any(Number),
    });
  });

  it("by a schema that cannot be kept is refused with what is wrong", async () => {
    const response_format = { type: "json_schema", schema: { type: "string", pattern: "^a" } } as const;
    await expect(whole(model, chat("Hi", { response_format }))).rejects.toMatchObject({
      status: 400,
      message: expect.stringContaining("schema.pattern is not supported"),
      options: { param: "response_format" },
    });
  });
});
