import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ChatHistoryItem, ChatModelFunctions, GbnfJsonSchema } from "node-llama-cpp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { defineModel } from "./catalogue.ts";
import type { Answer, Chat, Header, Tokens } from "./engine-child.ts";
import { EngineProcess } from "./engine-process.ts";
import { cachedModel, MODEL_TYPES, SCRIPTED, writeModel } from "./index.ts";
import { WORDS } from "./words.ts";

const TEMPERATURES = [0, 0.7, 1];
const TEXTS = [
  "hello world",
  "Paris  and London ",
  "Größe, Übermaß, Straße",
  "naïve 👩‍🚀🇩🇪 🙂 emoji",
  "日本語 и русский",
  "line\n\n  two\ttabs",
  'get_weather {"city": "Rome"}',
];
const pending: ChatHistoryItem = { type: "model", response: [] };
const called: ChatHistoryItem = {
  type: "model",
  response: [{ type: "functionCall", name: SCRIPTED.toolName, params: { city: "Rome" }, result: "sunny" }],
};
const user = (text: string): ChatHistoryItem => ({ type: "user", text });
const tool = (name: string, ...properties: string[]): ChatModelFunctions => ({
  [name]: {
    params: {
      type: "object",
      properties: Object.fromEntries(properties.map((property) => [property, { type: "string" }])),
      required: properties,
    },
  },
});

/** The library itself on the generated files: what they are for. */
describe("generated models in the real engine", () => {
  let engine: EngineProcess;
  let dir: string;
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), "cds-gguf-engine-"));
    engine = new EngineProcess();
  });
  afterAll(async () => {
    // By itself, once its parent has let go of it.
    expect(await engine.end()).toBe(0);
    await rm(dir, { recursive: true, force: true });
  });

  it.each([
    ["tiny-bpe", "llama.context_length", 2048],
    ["tiny-spm", "llama.context_length", 2048],
    ["tiny-bert", "bert.context_length", 512],
    ["tiny-scripted", "llama.context_length", 32_768],
  ] as const)("%s: the header is what was written", async (name, key, contextLength) => {
    const { metadata, tensors } = defineModel(name);
    const header = await engine.ask<Header>({ kind: "read", path: await cachedModel(name) });
    expect(header.version).toBe(3);
    expect(Object.keys(header.metadata).sort()).toEqual(metadata.map(([written]) => written).sort());
    expect(header.metadata).toMatchObject({ "general.name": name, [key]: contextLength });
    expect(header.tensors).toEqual(tensors.map(({ name, shape }) => ({ name, shape })));
  });

  // A word with a line in it is two for GPT-2's vocabulary.
  const words = WORDS.filter((word) => !word.includes("_"));
  it.each([
    ["tiny-bpe", words.join(" "), words.length],
    ["tiny-spm", words.join(" "), words.length],
    ["tiny-scripted", SCRIPTED.plain, 9],
    ["tiny-scripted", SCRIPTED.afterTool, 7],
    ["tiny-scripted", SCRIPTED.counting.join(""), SCRIPTED.counting.length],
  ] as const)("%s: words it knows are one token each", async (name, known, count) => {
    const path = await cachedModel(name);
    const [tokens] = await engine.ask<Tokens[]>({ kind: "tokens", path, texts: [known] });
    expect(tokens).toEqual({ text: known, count });
  });

  it.each(["tiny-bpe", "tiny-spm", "tiny-scripted"] as const)(
    "%s: every text comes back from its tokens, whatever language it is in",
    async (name) => {
      const path = await cachedModel(name);
      const trips = await engine.ask<Tokens[]>({ kind: "tokens", path, texts: TEXTS });
      expect(trips.map(({ text }) => text)).toEqual(TEXTS);
      for (const [index, { count }] of trips.entries()) {
        expect(count).toBeLessThanOrEqual(Buffer.byteLength(TEXTS[index] ?? "") + 1);
      }
    },
  );

  it.each(MODEL_TYPES)("random models in %s run, and say the same for the same seed", async (type) => {
    for (const name of ["tiny-bpe", "tiny-spm"] as const) {
      const path = join(dir, `${name}-${type}.gguf`);
      writeModel(name, path, { type });
      const chat = { history: [user("hello"), pending], temperature: 0.8, maxTokens: 24 };
      const [one, two] = await engine.ask<Answer[]>({ kind: "chat", path, chats: [chat, chat] });
      expect(two).toEqual(one);
      expect(one?.text).not.toBe("");
    }
  });

  it.each(MODEL_TYPES)("tiny-bert in %s: one vector per text, the same for the same text", async (type) => {
    const path = join(dir, `tiny-bert-${type}.gguf`);
    writeModel("tiny-bert", path, { type });
    const texts = ["hello world", "Paris", "hello world"];
    const [first, second, third] = await engine.ask<number[][]>({ kind: "embeddings", path, texts });
    expect(first).toHaveLength(128);
    expect(first?.every(Number.isFinite)).toBe(true);
    expect(third).toEqual(first);
    expect(second).not.toEqual(first);
  });

  describe("tiny-scripted, at every temperature up to 1", () => {
    /** The answers to one chat, one for each temperature. */
    const answers = async (...history: ChatHistoryItem[]) => answersTo({ history });
    const answersTo = async (chat: Partial<Chat>) =>
      engine.ask<Answer[]>({
        ...{ kind: "chat", path: await cachedModel("tiny-scripted") },
        chats: TEMPERATURES.map((temperature) => ({
          ...{ history: [user("Grüß Gott! 🙂"), pending], temperature, maxTokens: 100, ...chat },
        })),
      });
    const allOf = (answer: Partial<Answer>) => TEMPERATURES.map(() => expect.objectContaining(answer));
    const plain = { text: SCRIPTED.plain, calls: [], stopReason: "eogToken" };

    it("says one sentence to anything", async () => {
      expect(await answers(user("Grüß Gott! 🙂"), pending)).toEqual(allOf(plain));
      expect(await answers({ type: "system", text: "Be short." }, user("\n\n"), pending)).toEqual(
        allOf(plain),
      );
      const before: ChatHistoryItem = { type: "model", response: ["The one two"] };
      expect(await answers(user("a"), before, user("b"), pending)).toEqual(allOf(plain));
    });

    it("finds what it looks for however long ago it was", async () => {
      // Some 6000 tokens: most letters are one each.
      const long = user("Lorem ipsum dolor sit amet. ".repeat(250));
      expect(await answers(long, pending)).toEqual(allOf(plain));
      const history = [user("count forever"), long, pending];
      const text = SCRIPTED.counting.join("").trim();
      expect(await answersTo({ history, maxTokens: 10 })).toEqual(allOf({ text }));
    });

    it("counts without an end when it reads forever", async () => {
      const history = [user("Please count forever."), pending];
      const counted = await answersTo({ history, maxTokens: 25 });
      const { counting } = SCRIPTED;
      const text = [...counting, ...counting, ...counting.slice(0, 5)].join("").trim();
      expect(counted).toEqual(allOf({ text, stopReason: "maxTokens" }));
    });

    it("calls the tool it is offered", async () => {
      const params = JSON.parse(SCRIPTED.toolArguments) as unknown;
      expect(await answersTo({ functions: tool(SCRIPTED.toolName, "city") })).toEqual(
        allOf({ text: "", calls: [{ name: SCRIPTED.toolName, params }], stopReason: "functionCalls" }),
      );
      expect(await answersTo({ functions: tool("read_file", "path") })).toEqual(
        allOf({ calls: [{ name: "read_file", params: { path: "" } }], stopReason: "functionCalls" }),
      );
      const history = [user("count forever"), pending];
      const both = { ...tool("read_file", "path"), ...tool(SCRIPTED.toolName, "city") };
      expect(await answersTo({ history, functions: both })).toEqual(
        allOf({ calls: [{ name: SCRIPTED.toolName, params }] }),
      );
    });

    it("tells the tool's result, whatever else is there", async () => {
      const after = { text: SCRIPTED.afterTool, calls: [], stopReason: "eogToken" };
      const functions = tool(SCRIPTED.toolName, "city");
      expect(await answers(user("Weather?"), called)).toEqual(allOf(after));
      const history = [user("The weather, forever?"), called, user("And now?"), pending];
      expect(await answersTo({ history, functions })).toEqual(allOf(after));
    });

    it.each<[string, GbnfJsonSchema, unknown]>([
      ["an object", { type: "object" }, {}],
      ["the script's object", objectOf({ city: { enum: ["Paris", "Rome"] } }), JSON.parse(SCRIPTED.json)],
      [
        "an object of anything",
        objectOf({
          title: { type: "string" },
          count: { type: "integer" },
          share: { type: "number" },
          wanted: { type: "boolean" },
          none: { type: "null" },
          list: { type: "array", items: { type: "string" } },
          two: { type: "array", items: { type: "integer" }, minItems: 2 },
          inner: objectOf({ a: { type: "string" } }),
        }),
        {
          ...{ title: "", count: 0, share: 0, wanted: true, none: null, list: [], two: [0, 0] },
          inner: { a: "" },
        },
      ],
    ])("closes what it opens in JSON: %s", async (_name, schema, value) => {
      const given = await answersTo({ schema });
      expect(given.map(({ text }) => JSON.parse(text))).toEqual(TEMPERATURES.map(() => value));
      expect(given.every(({ stopReason }) => stopReason !== "maxTokens")).toBe(true);
    });
  });
});

function objectOf(properties: Record<string, GbnfJsonSchema>): GbnfJsonSchema {
  return { type: "object", properties, additionalProperties: false };
}
