import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { chat, startTestEngine, type TestModel, whole } from "#tests/support/engines.ts";

let bert: TestModel;
let writer: TestModel;
beforeAll(async () => {
  bert = await startTestEngine("tiny-bert", { load: {} });
  writer = await startTestEngine("tiny-scripted");
});
afterAll(async () => {
  await Promise.all([bert, writer].map((model) => model[Symbol.asyncDispose]()));
});

const signal = new AbortController().signal;
const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, value, i) => sum + value * (b[i] ?? 0), 0);

describe("embeddings by a local model", () => {
  it("have length 1, one per input, in order, the same for the same text", async () => {
    expect(bert.info).toMatchObject({
      architecture: "bert",
      kind: "embedding",
      context_size: 512,
      sequences: 1,
    });
    const inputs = ["hello world", "the weather in paris", "hello world"];
    const { vectors, input_tokens } = await bert.embed(inputs, signal);
    expect(vectors).toHaveLength(3);
    for (const vector of vectors) {
      expect(vector).toHaveLength(bert.info.embedding_length);
      expect(Math.hypot(...vector)).toBeCloseTo(1, 5);
    }
    const [first, other, again] = vectors as [Float32Array, Float32Array, Float32Array];
    expect(dot(first, again)).toBeCloseTo(1, 5);
    expect(dot(first, other)).toBeLessThan(0.999);
    const each = await Promise.all(inputs.map((input) => bert.embed([input], signal)));
    expect(input_tokens).toBe(each.reduce((sum, { input_tokens: tokens }) => sum + tokens, 0));
    // Two words, and the two tokens that mark the ends of a text.
    expect(each[0]?.input_tokens).toBe(4);
  });

  it("an input that is too long is named; one that just fits is embedded", async () => {
    const words = (count: number) => Array.from({ length: count }, () => "hello").join(" ");
    const fitting = await bert.embed([words(510)], signal);
    expect(fitting.input_tokens).toBe(512);
    await expect(bert.embed(["short", words(511)], signal)).rejects.toMatchObject({
      status: 400,
      options: { param: "input[1]", code: "context_length_exceeded" },
    });
    await expect(bert.embed(["x".repeat(1_000_000)], signal)).rejects.toMatchObject({ status: 400 });
  });

  it("can be cancelled", async () => {
    const controller = new AbortController();
    const inputs = Array.from({ length: 400 }, (_, i) => `hello world ${i} `.repeat(60));
    const running = bert.embed(inputs, controller.signal);
    controller.abort(new Error("not wanted"));
    await expect(running).rejects.toThrow("not wanted");
    expect((await bert.embed(["hello"], signal)).vectors).toHaveLength(1);
  });

  it("come from embedding models, text from the others", async () => {
    await expect(writer.embed(["hello"], signal)).rejects.toMatchObject({
      status: 400,
      options: { param: "model" },
    });
    await expect(whole(bert, chat("Hi"))).rejects.toMatchObject({ status: 400, options: { param: "model" } });
  });
});
