import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { chat, emptyWhole, startTestEngine, type TestModel, whole } from "#tests/support/engines.ts";
import { SCRIPTED } from "#tests/support/gguf/index.ts";

const SEQUENCES = 4;
const WAITING = 3;
let model: TestModel;
beforeAll(async () => {
  model = await startTestEngine("tiny-scripted", {
    load: { context_size: 2048, sequences: SEQUENCES },
    limits: { waiting: WAITING },
  });
});
afterAll(() => model[Symbol.asyncDispose]());

const signal = new AbortController().signal;
/** Counts until its limit, or the context's, is reached. */
const endless = (max_tokens = 100_000) => chat("Please count forever", { max_tokens });

/** One that runs until it is stopped, and has begun. */
async function running() {
  const controller = new AbortController();
  const into = emptyWhole();
  const done = whole(model, endless(), controller.signal, into).catch((error: unknown) => error);
  await expect.poll(() => into.usage.output_tokens).toBeGreaterThan(0);
  return {
    into,
    async stop() {
      controller.abort(new Error("not wanted any more"));
      expect(await done).toMatchObject({ message: "not wanted any more" });
    },
  };
}

describe("many requests at once", () => {
  it("sixteen streams are all answered, each with exact figures", async () => {
    await using sixteen = await startTestEngine("tiny-scripted", {
      load: { context_size: 512, sequences: 16 },
    });
    const asked = Array.from({ length: 16 }, (_, i) => chat(`Hi number ${i}`, { max_tokens: 4 + i }));
    const answers = await Promise.all(asked.map((request) => whole(sixteen, request)));
    for (const [i, { choices, usage }] of answers.entries()) {
      const request = asked[i] ?? chat("");
      expect(SCRIPTED.plain.startsWith(choices[0]?.text ?? "-")).toBe(true);
      expect(usage.output_tokens).toBe(Math.min(9, 4 + i));
      expect(choices[0]?.finish).toBe(4 + i <= 9 ? "length" : "stop");
      expect(usage.input_tokens).toBe(await sixteen.count(request, signal));
    }
    expect(sixteen.active).toBe(0);
  });

  it("more than there are sequences wait in line; too many are refused with when to come again", async () => {
    const busy = await Promise.all(Array.from({ length: SEQUENCES }, running));
    const waiting = Array.from({ length: WAITING }, () => whole(model, chat("Hi")));
    await model.count(chat("Hi"), signal);
    expect(model.active).toBe(SEQUENCES + WAITING);
    await expect(whole(model, chat("Hi"))).rejects.toMatchObject({
      status: 429,
      options: { code: "engine_overloaded", retryAfterSeconds: expect.any(Number), shouldRetry: true },
    });
    await Promise.all(busy.map((each) => each.stop()));
    for (const { choices } of await Promise.all(waiting)) expect(choices[0]?.text).toBe(SCRIPTED.plain);
    expect(model.active).toBe(0);
  });

  it("one that is cancelled while it waits leaves the line and cost nothing", async () => {
    const busy = await Promise.all(Array.from({ length: SEQUENCES }, running));
    const controller = new AbortController();
    const into = emptyWhole();
    const cancelled = whole(model, chat("Hi"), controller.signal, into);
    const others = Array.from({ length: WAITING - 1 }, () => whole(model, chat("Hi")));
    await model.count(chat("Hi"), signal);
    controller.abort(new Error("gone"));
    await expect(cancelled).rejects.toThrow("gone");
    expect(into.usage).toEqual({ input_tokens: 0, cached_tokens: 0, output_tokens: 0 });
    // Its place is free again.
    const last = whole(model, chat("Hi"));
    await Promise.all(busy.map((each) => each.stop()));
    const answers = await Promise.all([...others, last]);
    expect(answers.map(({ choices }) => choices[0]?.text)).toEqual(
      Array.from({ length: WAITING }, () => SCRIPTED.plain),
    );
  });

  it("one that is cancelled while generating tells what it used to the last token, and its sequence is free", async () => {
    const { into, stop } = await running();
    await stop();
    const words = into.choices[0]?.text.trim().split(" ").length ?? 0;
    expect(into.usage.output_tokens).toBeGreaterThanOrEqual(words);
    expect(into.choices[0]?.finish).toBeUndefined();
    const all = await Promise.all(Array.from({ length: SEQUENCES }, () => whole(model, chat("Hi"))));
    for (const { choices } of all) expect(choices[0]?.text).toBe(SCRIPTED.plain);
  });

  it("leaving the loop is cancelling", async () => {
    for await (const _ of model.generate(endless(), signal)) break;
    expect(model.active).toBe(0);
    const all = await Promise.all(Array.from({ length: SEQUENCES }, () => whole(model, chat("Hi"))));
    for (const { choices } of all) expect(choices[0]?.text).toBe(SCRIPTED.plain);
  });

  it("one that is cancelled while its prompt is evaluated stops there", async () => {
    const long = chat(`${"abcdefghij".repeat(190)} forever`, { max_tokens: 5 });
    const total = await model.count(long, signal);
    expect(total).toBeGreaterThan(1500);
    const controller = new AbortController();
    const into = emptyWhole();
    const cancelled = whole(model, long, controller.signal, into);
    setImmediate(() => controller.abort(new Error("too long")));
    await expect(cancelled).rejects.toThrow("too long");
    expect(into.usage.input_tokens).toBeLessThan(total);
    expect(into.usage.output_tokens).toBe(0);
    expect((await whole(model, chat("Hi"))).choices[0]?.text).toBe(SCRIPTED.plain);
  });

  it("others go on while a long prompt is evaluated", async () => {
    const { into, stop } = await running();
    const before = into.usage.output_tokens;
    const { choices } = await whole(model, chat("xyzw".repeat(450), { max_tokens: 3 }));
    expect(choices[0]?.finish).toBe("length");
    expect(into.usage.output_tokens).toBeGreaterThan(before);
    await stop();
  });
});

describe("the context", () => {
  it("ends an answer that reaches its end, and nothing is left out of it before", async () => {
    const { choices, usage } = await whole(model, endless());
    expect(choices[0]?.finish).toBe("length");
    expect(usage.input_tokens + usage.output_tokens).toBe(model.info.context_size);
    const { counting } = SCRIPTED;
    const all = Array.from({ length: usage.output_tokens }, (_, i) => counting[i % counting.length]);
    expect(choices[0]?.text).toBe(all.join("").trimStart());
  });

  it("that a prompt does not fit into is told with the numbers, before anything is evaluated", async () => {
    const long = chat("abcdefghij".repeat(300));
    const refusal = {
      status: 400,
      message: expect.stringContaining("2048"),
      options: { code: "context_length_exceeded", param: "messages" },
    };
    await expect(model.count(long, signal)).rejects.toMatchObject(refusal);
    await expect(whole(model, long)).rejects.toMatchObject(refusal);
    await expect(model.count(chat("x".repeat(3_000_000)), signal)).rejects.toMatchObject(refusal);
  });

  it("takes a prompt that leaves room for one token", async () => {
    const fixed = await model.count(chat("z"), signal);
    const text = "z".repeat(model.info.context_size - 1 - fixed + 1);
    expect(await model.count(chat(text), signal)).toBe(model.info.context_size - 1);
    const { choices, usage } = await whole(model, chat(text));
    expect(usage).toMatchObject({ input_tokens: model.info.context_size - 1, output_tokens: 1 });
    expect(choices[0]?.finish).toBe("length");
    await expect(model.count(chat(`${text}z`), signal)).rejects.toMatchObject({ status: 400 });
  });
});
