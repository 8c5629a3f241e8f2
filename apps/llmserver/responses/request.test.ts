import { describe, expect, it } from "vitest";
import { AppError } from "#schemas";
import { ApiError, toApiError } from "../api-error.ts";
import { parseResponsesRequest, toChatBody } from "./index.ts";

const chat = (body: Record<string, unknown>) => toChatBody(parseResponsesRequest({ model: "m", ...body }));
const messages = (input: unknown[]) => chat({ input }).messages;

/** What a client would read of the refusal. */
function refusal(body: Record<string, unknown>) {
  try {
    parseResponsesRequest({ model: "m", input: "x", ...body });
  } catch (error) {
    const { status, options, message } = toApiError(error);
    return { status, param: options.param, code: options.code, message, error };
  }
  throw new Error("was not refused");
}

const user = (content: unknown) => ({ role: "user", content });
const call = (call_id: string, name = "look", args = "{}") => ({
  type: "function_call",
  call_id,
  name,
  arguments: args,
});
const output = (call_id: string, text: unknown = "seen") => ({
  type: "function_call_output",
  call_id,
  output: text,
});
const chatCall = (id: string, name = "look", args = "{}") => ({
  id,
  type: "function",
  function: { name, arguments: args },
});
const tool = (tool_call_id: string, content = "seen") => ({ role: "tool", tool_call_id, content });

describe("a Responses request as a chat", () => {
  it("needs no more than a model and a text", () => {
    expect(chat({ input: "Hallo" })).toEqual({ model: "m", stream: false, messages: [user("Hallo")] });
  });

  it("puts instructions first, and developers' words are the system's", () => {
    const input = [
      { role: "developer", content: "b" },
      { type: "message", ...user("c") },
    ];
    expect(chat({ instructions: "a", input }).messages).toEqual([
      { role: "system", content: "a" },
      { role: "system", content: "b" },
      user("c"),
    ]);
  });

  it("keeps a user's parts, joins an answer's, and takes images with their detail", () => {
    const url = "data:image/png;base64,AA==";
    const parts = [
      { type: "input_text", text: "What is" },
      { type: "input_image", image_url: url, detail: "low" },
      { type: "input_image", image_url: url, detail: "original" },
      { type: "input_image", image_url: url },
    ];
    const answer = [
      { type: "output_text", text: "a ", annotations: [] },
      { type: "output_text", text: "cat" },
      { type: "refusal", refusal: "." },
    ];
    const one = [{ type: "input_text", text: "one" }];
    expect(messages([user(parts), { role: "assistant", content: answer }, user(one)])).toEqual([
      user([
        { type: "text", text: "What is" },
        { type: "image_url", image_url: { url, detail: "low" } },
        { type: "image_url", image_url: { url, detail: "high" } },
        { type: "image_url", image_url: { url } },
      ]),
      { role: "assistant", content: "a cat." },
      user("one"),
    ]);
  });

  it("makes one turn of what an answer said and called, and leaves its reasoning out", () => {
    const items = [
      user("go"),
      { type: "reasoning", id: "rs_1", summary: [] },
      { type: "message", id: "msg_1", status: "completed", role: "assistant", content: "I look." },
      call("c1", "look", '{"a":1}'),
      { type: "reasoning", id: "rs_2", summary: [] },
      call("c2"),
      output("c2", "two"),
      output("c1", [
        { type: "input_text", text: "o" },
        { type: "input_text", text: "ne" },
      ]),
      { role: "assistant", content: "Done." },
    ];
    expect(messages(items)).toEqual([
      user("go"),
      {
        role: "assistant",
        content: "I look.",
        tool_calls: [chatCall("c1", "look", '{"a":1}'), chatCall("c2")],
      },
      tool("c1", "one"),
      tool("c2", "two"),
      { role: "assistant", content: "Done." },
    ]);
  });

  it("moves an output up to its call, whatever was said in between", () => {
    const said = { role: "assistant", content: "after" };
    expect(messages([call("c1"), said, user("wait"), output("c1")])).toEqual([
      { role: "assistant", content: "after", tool_calls: [chatCall("c1")] },
      tool("c1"),
      user("wait"),
    ]);
  });

  it("keeps turns apart: one after another, also where ids are used again", () => {
    const turns = [call("c"), output("c", "first"), call("c"), output("c", "second")];
    const said = [
      { role: "assistant", content: "a" },
      { role: "assistant", content: "b" },
    ];
    expect(messages([...said, call("d"), output("d")])).toEqual([
      said[0],
      { ...said[1], tool_calls: [chatCall("d")] },
      tool("d"),
    ]);
    expect(messages([...turns, ...said])).toEqual([
      { role: "assistant", content: null, tool_calls: [chatCall("c")] },
      tool("c", "first"),
      { role: "assistant", content: null, tool_calls: [chatCall("c")] },
      tool("c", "second"),
      ...said,
    ]);
  });

  it("nests what is flat: tools, their choice, formats", () => {
    const parameters = { type: "object", properties: {} };
    const schema = { type: "object" };
    expect(
      chat({
        input: "x",
        tools: [
          { type: "function", name: "look", description: "Looks.", parameters, strict: true },
          { type: "function", name: "stop", parameters: null, strict: null },
        ],
        tool_choice: { type: "function", name: "look" },
        parallel_tool_calls: false,
        text: { format: { type: "json_schema", name: "place", strict: true, schema }, verbosity: "low" },
      }),
    ).toMatchObject({
      tools: [
        { type: "function", function: { name: "look", description: "Looks.", parameters, strict: true } },
        { type: "function", function: { name: "stop" } },
      ],
      tool_choice: { type: "function", function: { name: "look" } },
      parallel_tool_calls: false,
      response_format: { type: "json_schema", json_schema: { name: "place", strict: true, schema } },
      verbosity: "low",
    });
    expect(chat({ input: "x", text: { format: { type: "json_object" } } }).response_format).toEqual({
      type: "json_object",
    });
    expect(chat({ input: "x", text: { format: { type: "text" } } })).not.toHaveProperty("response_format");
  });

  it("says nothing of tools where there are none, and nothing of a choice that was not made", () => {
    const none = chat({ input: "x", tools: [], tool_choice: "auto", parallel_tool_calls: true });
    expect(Object.keys(none)).toEqual(["model", "stream", "messages"]);
    const some = chat({ input: "x", tools: [{ type: "function", name: "look" }] });
    expect(Object.keys(some)).toEqual(["model", "stream", "messages", "tools"]);
  });

  it("renames what is named otherwise and passes on what is not", () => {
    const same = {
      ...{ temperature: 0.5, top_p: 0.9, user: "u", safety_identifier: "s", prompt_cache_key: "k" },
      ...{ service_tier: "auto", seed: 7, stop: ["x"], logit_bias: { 5: -1 }, top_k: 40 },
    };
    const body = { input: "x", ...same, max_output_tokens: 9, reasoning: { effort: "low" }, stream: true };
    expect(chat(body)).toEqual({
      ...same,
      ...{ model: "m", stream: true, messages: [user("x")], max_tokens: 9, reasoning_effort: "low" },
    });
  });

  it("asks for probabilities when they are to be included or counted", () => {
    const include = ["message.output_text.logprobs", "reasoning.encrypted_content"];
    expect(chat({ input: "x", include })).toMatchObject({ logprobs: true });
    expect(chat({ input: "x", include, top_logprobs: 3 })).toMatchObject({ logprobs: true, top_logprobs: 3 });
    expect(chat({ input: "x", top_logprobs: 3 })).toMatchObject({ logprobs: true, top_logprobs: 3 });
    expect(chat({ input: "x", top_logprobs: 0 })).not.toHaveProperty("logprobs");
  });

  it("keeps to itself what has no effect on an answer", () => {
    const body = { store: true, metadata: { a: "b" }, truncation: "disabled", background: false };
    const more = { stream_options: { include_obfuscation: false }, max_tool_calls: 3, n: 4, messages: [] };
    expect(chat({ input: "x", ...body, ...more, previous_response_id: null })).toEqual(chat({ input: "x" }));
  });
});

describe("what a Responses request may not ask for", () => {
  it.each([
    ["previous_response_id", { previous_response_id: "resp_1" }],
    ["conversation", { conversation: { id: "conv_1" } }],
    ["background", { background: true }],
    ["prompt", { prompt: { id: "pmpt_1" } }],
    ["truncation", { truncation: "auto" }],
    ["context_management", { context_management: [{ type: "compaction" }] }],
    ["moderation", { moderation: { model: "omni" } }],
    ["tools[1].type", { tools: [{ type: "function", name: "a" }, { type: "web_search" }] }],
    ["tool_choice", { tool_choice: { type: "web_search" } }],
    ["input[0]", { input: [{ type: "item_reference", id: "msg_1" }] }],
    ["input[0]", { input: [{ id: "msg_1" }] }],
    ["input[1].type", { input: [user("x"), { type: "web_search_call", id: "ws_1" }] }],
    [
      "input[0].content[1].type",
      { input: [user([{ type: "input_text", text: "a" }, { type: "input_file" }])] },
    ],
    ["input[0].content[0].file_id", { input: [user([{ type: "input_image", file_id: "file_1" }])] }],
    [
      "input[0].content[0].type",
      { input: [{ role: "system", content: [{ type: "input_image", image_url: "data:," }] }] },
    ],
    ["input[1].output[0].type", { input: [call("c"), output("c", [{ type: "input_image" }])] }],
  ])("%s is refused by name, with what to do instead", (param, body) => {
    const told = refusal(body);
    expect(told).toMatchObject({ status: 400, param, code: "unsupported_parameter" });
    expect(told.error).toBeInstanceOf(ApiError);
    expect(told.message).toContain(`'${param}' is not supported here. `);
  });

  it.each([
    ["model", { model: undefined }],
    ["input", { input: undefined }],
    ["input", { input: 5 }],
    ["input", { input: [] }],
    ["input", { input: [{ type: "reasoning", id: "rs_1", summary: [] }] }],
    ["input[0]", { input: ["x"] }],
    ["input[0].role", { input: [{ role: "robot", content: "x" }] }],
    ["input[0].content", { input: [user(5)] }],
    ["input[0].content[0]", { input: [user(["x"])] }],
    ["input[0].content[0].text", { input: [user([{ type: "input_text" }])] }],
    ["input[0].arguments", { input: [{ type: "function_call", call_id: "c", name: "look" }] }],
    ["input[0].call_id", { input: [call("c")] }],
    ["input[1].call_id", { input: [call("c"), call("c"), output("c")] }],
    ["input[0].call_id", { input: [output("c"), call("c")] }],
    ["input[1].output", { input: [call("c"), output("c", { a: 1 })] }],
    ["tools[0].name", { tools: [{ type: "function", name: "no good" }] }],
    ["tools[0].type", { tools: [{}] }],
    ["tool_choice", { tool_choice: "required" }],
    ["tool_choice", { tool_choice: { type: "function", name: "absent" } }],
    ["temperature", { temperature: 3 }],
    ["max_output_tokens", { max_output_tokens: 0 }],
    ["text.format.type", { text: { format: { type: "xml" } } }],
    ["text.format.schema", { text: { format: { type: "json_schema", name: "a" } } }],
    ["metadata.a", { metadata: { a: 1 } }],
    ["metadata", { metadata: Object.fromEntries(Array.from({ length: 17 }, (_, at) => [`k${at}`, ""])) }],
    ["top_logprobs", { top_logprobs: 21 }],
    ["stream", { stream: "yes" }],
  ])("%s is named where it is wrong", (param, body) => {
    const told = refusal(body);
    expect(told).toMatchObject({ status: 400, param });
    expect(told.error).toBeInstanceOf(AppError);
    expect(told.message.startsWith(`${param}: `)).toBe(true);
  });
});
