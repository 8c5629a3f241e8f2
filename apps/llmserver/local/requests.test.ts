import { describe, expect, it } from "vitest";
import { toApiError } from "../api-error.ts";
import { parseChatRequest } from "../requests/chat-request.ts";
import { parseCompletionRequest } from "../requests/completion-request.ts";
import { parseEmbeddingRequest } from "../requests/embedding-request.ts";
import { toChatGenerate, toCompletionGenerates } from "./requests.ts";

const messages = [{ role: "user", content: "Hallo" }];
const tool = { type: "function", function: { name: "look", parameters: { type: "object" } } };
const chat = (body: object) => toChatGenerate(parseChatRequest({ model: "m", messages, ...body }, 100));
const completion = (body: object) =>
  toCompletionGenerates(parseCompletionRequest({ model: "m", prompt: "Es war", ...body }, 100));

function refusal(act: () => unknown) {
  try {
    act();
  } catch (error) {
    const known = toApiError(error);
    return { status: known.status, ...known.envelope().error };
  }
  throw new Error("nothing was refused");
}

describe("a chat for a local model", () => {
  it("has defaults of its own and takes what is named", () => {
    expect(chat({})).toMatchObject({
      kind: "chat",
      tools: [],
      tool_choice: "none",
      response_format: { type: "text" },
      stop: [],
      max_tokens: 100,
      n: 1,
      logprobs: undefined,
    });
    const asked = chat({
      ...{ tools: [tool], stop: ["", "x"], n: 2, seed: 7, top_k: 5, min_p: 0.1, max_completion_tokens: 9 },
      ...{
        logprobs: true,
        top_logprobs: 3,
        response_format: { type: "json_schema", json_schema: { schema: {} } },
      },
    });
    expect(asked).toMatchObject({
      ...{ tool_choice: "auto", stop: ["x"], n: 2, max_tokens: 9, logprobs: 3 },
      response_format: { type: "json_schema", schema: {} },
      sampling: { seed: 7, top_k: 5, min_p: 0.1 },
      tools: [{ name: "look", parameters: { type: "object" } }],
    });
    expect(
      chat({ tools: [tool], tool_choice: { type: "function", function: { name: "look" } } }),
    ).toMatchObject({
      tool_choice: { name: "look" },
    });
  });

  it("refuses by name what it would have to leave out", () => {
    for (const name of ["functions", "function_call", "audio", "web_search_options"]) {
      expect(refusal(() => chat({ [name]: {} }))).toMatchObject({
        status: 400,
        param: name,
        code: "unsupported_parameter",
      });
    }
    expect(refusal(() => chat({ tool_choice: "required" }))).toMatchObject({ param: "tool_choice" });
    expect(refusal(() => chat({ top_logprobs: 2 }))).toMatchObject({ param: "top_logprobs" });
    const other = { type: "function", function: { name: "other" } };
    expect(refusal(() => chat({ tools: [tool], tool_choice: other }))).toMatchObject({
      param: "tool_choice",
    });
  });

  it("names the field that is out of range", () => {
    const wrong: [object, string][] = [
      [{ temperature: 3 }, "temperature"],
      [{ top_p: -1 }, "top_p"],
      [{ logit_bias: { x: 1 } }, "logit_bias.x"],
      [{ stop: ["a", "b", "c", "d", "e"] }, "stop"],
      [{ tools: [{ type: "web_search" }] }, "tools[0].type"],
      [{ tools: [{ type: "function", function: { name: "no blanks" } }] }, "tools[0].function.name"],
      [{ response_format: { type: "xml" } }, "response_format.type"],
      [{ response_format: { type: "json_schema" } }, "response_format.json_schema"],
      [{ modalities: ["audio"] }, "modalities[0]"],
    ];
    for (const [body, param] of wrong)
      expect(refusal(() => chat(body))).toMatchObject({ status: 400, param });
  });
});

describe("a completion for a local model", () => {
  it("makes one request per prompt, texts and token ids alike", () => {
    expect(completion({ prompt: ["a", "b"], n: 2, suffix: "z" })).toMatchObject([
      { kind: "completion", prompt: "a", n: 2, suffix: "z", max_tokens: 16 },
      { kind: "completion", prompt: "b", n: 2 },
    ]);
    expect(completion({ prompt: [1, 2, 3], max_tokens: 500 })).toMatchObject([
      { prompt: [1, 2, 3], max_tokens: 100 },
    ]);
    expect(completion({ prompt: [[1], [2, 3]] })).toHaveLength(2);
  });

  it("refuses more answers than it gives", () => {
    expect(refusal(() => completion({ best_of: 3 }))).toMatchObject({ param: "best_of" });
    expect(refusal(() => completion({ prompt: ["a", "b", "c"], n: 6 }))).toMatchObject({ param: "n" });
    expect(refusal(() => completion({ logprobs: 6 }))).toMatchObject({ param: "logprobs" });
  });

  it("refuses to echo token ids before anything is generated and charged", () => {
    for (const prompt of [
      [1, 2],
      [[1], [2]],
    ]) {
      expect(refusal(() => completion({ prompt, echo: true }))).toMatchObject({
        code: "unsupported_parameter",
        param: "echo",
      });
    }
    expect(completion({ prompt: ["a", "b"], echo: true })).toHaveLength(2);
  });
});

describe("an embedding's inputs", () => {
  it("are texts or token ids, one or many, never empty", () => {
    const inputs = (input: unknown) => parseEmbeddingRequest({ model: "m", input }).inputs;
    expect(inputs("a")).toEqual(["a"]);
    expect(inputs(["a", "b"])).toEqual(["a", "b"]);
    expect(inputs([1, 2])).toEqual([[1, 2]]);
    expect(inputs([[1], [2]])).toEqual([[1], [2]]);
    for (const wrong of ["", [], [""], [[]], [1.5], [-1], {}, null, ["a", 1]]) {
      expect(() => inputs(wrong)).toThrow();
    }
  });
});
