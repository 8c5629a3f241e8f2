import { describe, expect, it } from "vitest";
import { AppError } from "#schemas";
import { parseChatRequest } from "./chat-request.ts";
import { parseCompletionRequest } from "./completion-request.ts";
import { parseEmbeddingRequest } from "./embedding-request.ts";

const MANY = 100_000;
const messages = [{ role: "user", content: "hallo" }];

function refusal(parse: () => unknown): AppError {
  try {
    parse();
  } catch (error) {
    if (error instanceof AppError) return error;
    throw error;
  }
  throw new Error("it was not refused");
}

describe("bodies of requests", () => {
  it("a name the database could not take is no model's", () => {
    const model = "a\u0000b";
    const all = [
      () => parseChatRequest({ model, messages }, 100),
      () => parseCompletionRequest({ model, prompt: "a" }, 100),
      () => parseEmbeddingRequest({ model, input: "a" }),
    ];
    for (const parse of all) {
      expect(refusal(parse)).toMatchObject({
        code: "InvalidParams",
        details: { issues: [{ path: "model" }] },
      });
    }
  });

  it.each([
    ["stop", () => parseChatRequest({ model: "m", messages, stop: Array(MANY).fill(1) }, 100)],
    ["prompt", () => parseCompletionRequest({ model: "m", prompt: Array(MANY).fill(-1) }, 100)],
    ["prompt", () => parseCompletionRequest({ model: "m", prompt: [Array(MANY).fill(-1)] }, 100)],
    ["prompt", () => parseCompletionRequest({ model: "m", prompt: Array(MANY).fill([]) }, 100)],
    ["input", () => parseEmbeddingRequest({ model: "m", input: Array(MANY).fill(-1) })],
    ["input", () => parseEmbeddingRequest({ model: "m", input: [Array(MANY).fill(-1)] })],
  ])("a hundred thousand mistakes in %s are told as few", (path, parse) => {
    const { issues = [] } = refusal(parse).details;
    expect(issues.length).toBeLessThan(10);
    expect(issues[0]?.path).toContain(path);
  });

  it("token ids are taken as they are", () => {
    const ids = Array.from({ length: MANY }, (_, index) => index);
    expect(parseCompletionRequest({ model: "m", prompt: ids }, 100).prompts).toEqual([ids]);
    expect(parseEmbeddingRequest({ model: "m", input: [[1], [2, 3]] }).inputs).toEqual([[1], [2, 3]]);
  });
});
