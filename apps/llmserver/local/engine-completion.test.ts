import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { chat, completion, startTestEngine, type TestModel, whole } from "#tests/support/engines.ts";

let scripted: TestModel;
let bpe: TestModel;
let spm: TestModel;
beforeAll(async () => {
  scripted = await startTestEngine("tiny-scripted");
  // One at a time: in company a sum is made in another order, and this model's words are nearly equally likely.
  bpe = await startTestEngine("tiny-bpe", { load: { context_size: 1024, sequences: 1 } });
  spm = await startTestEngine("tiny-spm");
});
afterAll(async () => {
  await Promise.all([scripted, bpe, spm].map((model) => model[Symbol.asyncDispose]()));
});

/** Of a vocabulary with these words: it says what is likely after each of them. */
const COUNTING = " one";
const signal = new AbortController().signal;

describe("a completion by a local model", () => {
  it("goes on where the prompt ends, for as many tokens as wanted", async () => {
    const { choices, usage } = await whole(scripted, completion(COUNTING, { max_tokens: 3 }));
    expect(choices[0]).toMatchObject({ text: " two three four", finish: "length" });
    expect(usage).toEqual({ input_tokens: 1, cached_tokens: 0, output_tokens: 3 });
  });

  it("takes token ids, and refuses those there are none of", async () => {
    const byText = await whole(bpe, completion("hello world"));
    const counted = await bpe.count(completion([100, 101, 102]), signal);
    expect(counted).toBe(3);
    expect(byText.usage.output_tokens).toBeGreaterThan(0);
    for (const prompt of [[bpe.info.vocabulary], [-1], [1.5]]) {
      await expect(bpe.count(completion(prompt), signal)).rejects.toMatchObject({
        status: 400,
        options: { param: "prompt" },
      });
    }
  });

  it("stops before a stop string that lies across tokens", async () => {
    const { choices } = await whole(scripted, completion(COUNTING, { stop: ["ree fo"] }));
    expect(choices[0]).toMatchObject({ text: " two th", finish: "stop" });
  });

  it("fills in the middle, where the vocabulary has tokens for it", async () => {
    const { choices, usage } = await whole(
      scripted,
      completion("Hello", { suffix: " model", max_tokens: 2 }),
    );
    expect(choices[0]?.finish).toBe("length");
    // The two parts and three marks.
    expect(usage.input_tokens).toBeGreaterThanOrEqual(5);
    await expect(whole(spm, completion("hello", { suffix: "world" }))).rejects.toMatchObject({
      status: 400,
      options: { param: "suffix" },
    });
  });

  it("with the same seed is the same, with another one another", async () => {
    const ask = async (seed: number) => {
      const { choices } = await whole(
        bpe,
        completion("hello world", { max_tokens: 24, sampling: { temperature: 1, seed } }),
      );
      return choices[0]?.text;
    };
    const first = await ask(7);
    expect(await ask(8)).not.toBe(first);
    expect(await ask(-7)).not.toBe(first);
    expect(await ask(2 ** 40)).not.toBe(first);
    expect(await ask(7)).toBe(first);
  });

  it("choices differ by seed and are each the one that seed gives", async () => {
    const sampling = (seed: number) => ({ temperature: 1, seed });
    const both = await whole(bpe, completion("hello", { n: 2, max_tokens: 12, sampling: sampling(3) }));
    const second = await whole(bpe, completion("hello", { max_tokens: 12, sampling: sampling(4) }));
    expect(both.choices[1]?.text).toBe(second.choices[0]?.text);
    expect(both.choices[0]?.text).not.toBe(both.choices[1]?.text);
  });

  it("never shows half a character", async () => {
    for (const model of [bpe, spm]) {
      const { choices } = await whole(
        model,
        completion("hello", { max_tokens: 300, sampling: { temperature: 1.5, seed: 1 } }),
      );
      const text = choices[0]?.text ?? "";
      expect(text.length).toBeGreaterThan(0);
      expect(text).toBe(Buffer.from(text, "utf8").toString("utf8"));
    }
  });

  it("heeds biases and penalties", async () => {
    const plain = await whole(scripted, completion(COUNTING, { max_tokens: 1, logprobs: 0 }));
    expect(plain.choices[0]?.text).toBe(" two");
    const [two] = await tokenIds(" two");
    const biased = completion(COUNTING, {
      max_tokens: 1,
      sampling: { temperature: 0, logit_bias: { [String(two)]: -100 } },
    });
    expect((await whole(scripted, biased)).choices[0]?.text).not.toBe(" two");
    const long = (sampling: object) =>
      whole(bpe, completion("hello", { max_tokens: 60, sampling: { temperature: 0, ...sampling } }));
    const [free, penalised] = [await long({}), await long({ frequency_penalty: 2, presence_penalty: 2 })];
    expect(penalised.choices[0]?.text).not.toBe(free.choices[0]?.text);
    expect((await long({ repetition_penalty: 1.5 })).choices[0]?.text).not.toBe(free.choices[0]?.text);
  });
});

/** Ids of a text's tokens, found through the prompts that are counted and continued alike. */
async function tokenIds(text: string): Promise<number[]> {
  for (let id = 0; id < scripted.info.vocabulary; id++) {
    const { choices } = await whole(scripted, completion([id], { max_tokens: 1 }));
    const { choices: same } = await whole(scripted, completion(text, { max_tokens: 1 }));
    if (choices[0]?.text === same[0]?.text && choices[0]?.text === " three") return [id];
  }
  throw new Error(`No token for ${text}.`);
}

/** Without what stands for bytes that are none: this model writes some. */
const characters = (text: string) => text.replaceAll("\u{fffd}", "");

describe("log-probabilities of a local model", () => {
  it("are the model's own, with the alternatives, whatever the sampling", async () => {
    const ask = (sampling: object) =>
      whole(bpe, completion("hello", { max_tokens: 20, logprobs: 5, sampling: { seed: 5, ...sampling } }));
    for (const sampling of [
      { temperature: 0 },
      { temperature: 1 },
      { temperature: 0.3, top_k: 3, top_p: 0.5 },
    ]) {
      const { choices, usage } = await ask(sampling);
      const logprobs = choices[0]?.logprobs ?? [];
      expect(logprobs).toHaveLength(usage.output_tokens);
      // Special tokens are not shown.
      const shown = logprobs.filter(({ token }) => !/^<\|\w+\|>$/.test(token));
      const spelt = Buffer.from(shown.flatMap(({ bytes }) => bytes)).toString("utf8");
      expect(characters(spelt).startsWith(characters(choices[0]?.text ?? ""))).toBe(true);
      for (const { logprob, top, bytes } of logprobs) {
        expect(bytes.length).toBeGreaterThan(0);
        expect(top).toHaveLength(5);
        expect(logprob).toBeLessThanOrEqual(0);
        expect(top.reduce((sum, each) => sum + Math.exp(each.logprob), 0)).toBeLessThanOrEqual(1.001);
        expect(top.map((each) => each.logprob)).toEqual(
          top.map((each) => each.logprob).toSorted((a, b) => b - a),
        );
      }
    }
    const greedy = await ask({ temperature: 0 });
    for (const { token, logprob, top } of greedy.choices[0]?.logprobs ?? []) {
      expect(top[0]).toMatchObject({ token, logprob });
    }
  });

  it("do not change what is said, and the same token is as likely at any temperature", async () => {
    const sampling = { temperature: 1, seed: 11 };
    const without = await whole(bpe, completion("hello", { max_tokens: 16, sampling }));
    const withThem = await whole(bpe, completion("hello", { max_tokens: 16, sampling, logprobs: 2 }));
    expect(withThem.choices[0]?.text).toBe(without.choices[0]?.text);
    const colder = await whole(
      bpe,
      completion("hello", { max_tokens: 1, logprobs: 20, sampling: { temperature: 0.1, seed: 1 } }),
    );
    const hotter = await whole(
      bpe,
      completion("hello", { max_tokens: 1, logprobs: 20, sampling: { temperature: 2, seed: 1 } }),
    );
    expect(hotter.choices[0]?.logprobs[0]?.top).toEqual(colder.choices[0]?.logprobs[0]?.top);
  });

  it("come with chats too, for the text that is shown", async () => {
    const { choices, usage } = await whole(scripted, chat("Hi", { logprobs: 1 }));
    const logprobs = choices[0]?.logprobs ?? [];
    expect(logprobs).toHaveLength(usage.output_tokens);
    expect(logprobs.map(({ token }) => token).join("")).toBe(choices[0]?.text);
  });
});
