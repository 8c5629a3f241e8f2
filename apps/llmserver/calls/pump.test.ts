import { describe, expect, it } from "vitest";
import { parseChatRequest } from "../requests/chat-request.ts";
import { parseEmbeddingRequest } from "../requests/embedding-request.ts";
import type { Answer } from "../sources/source.ts";
import { parseWhole } from "./pump.ts";

const remote: Answer = {
  batches: () => {
    throw new Error("no stream");
  },
  text: async () => "",
  finish() {},
  report() {},
  redactor: { text: (text) => text, quick: (text) => text },
  [Symbol.dispose]() {},
};
const chat = parseChatRequest({ model: "m", messages: [{ role: "user", content: "hallo" }] }, 8192);
const embedding = parseEmbeddingRequest({ model: "m", input: Array(2048).fill("hallo") });

describe("whole answers", () => {
  it("may have as many numbers as vectors have", () => {
    const data = Array.from({ length: 2048 }, (_, index) => ({ index, embedding: Array(768).fill(0.125) }));
    expect(parseWhole(JSON.stringify({ data }), embedding, remote).data).toHaveLength(2048);
  });

  it("may tell the alternatives of every token", () => {
    const one = { token: "ab", bytes: [97, 98], logprob: -0.5 };
    const content = Array(8192).fill({ ...one, top_logprobs: Array(20).fill(one) });
    const text = JSON.stringify({ choices: [{ index: 0, logprobs: { content } }] });
    expect(parseWhole(text, chat, remote).choices).toHaveLength(1);
  });

  it("are refused when reading them would keep everybody waiting", () => {
    const lists = `{"data":[${"[],".repeat(2_000_000)}[]]}`;
    const broken = expect.objectContaining({
      status: 502,
      options: expect.objectContaining({ code: "provider_invalid_answer" }),
    });
    expect(() => parseWhole(lists, embedding, remote)).toThrow(broken);
    expect(() => parseWhole(lists.replace("data", "choices"), chat, remote)).toThrow(broken);
  });
});
