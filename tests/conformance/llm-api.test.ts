import { readFile, writeFile } from "node:fs/promises";
import type OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { SCRIPTED } from "../support/gguf/index.ts";
import { collect, type TestLlmServer } from "../support/llm-server.ts";
import { type LocalServer, startLocalServer } from "../support/local-models.ts";
import { type ScriptedProvider, startScriptedProvider } from "../support/provider.ts";
import { chatFeatures, weather } from "./chat-features.ts";
import { type Ask, type Feature, prove, type Target, tableOf, type Where } from "./feature.ts";
import { completionFeatures, embeddingFeatures, responseFeatures } from "./other-features.ts";

/** The official client against every endpoint, on a real local model and at a remote provider alike. */

const DOCS = "docs/llm-api.md";
const BEGIN = "<!-- parameters: written by tests/conformance/llm-api.test.ts -->";
const END = "<!-- end of parameters -->";
const CHAT = { messages: [{ role: "user" as const, content: "Hallo" }] };

const groups: readonly [features: readonly Feature[], ask: Ask][] = [
  [chatFeatures, ({ client, model }, body) => client.chat.completions.create({ model, ...CHAT, ...body })],
  [
    completionFeatures,
    ({ client, model }, body) => client.completions.create({ model, prompt: "x", ...body }),
  ],
  [
    embeddingFeatures,
    ({ client, embedder }, body) =>
      client.embeddings.create({ model: embedder, ...body } as OpenAI.EmbeddingCreateParams),
  ],
  [
    responseFeatures,
    ({ client, model }, body) =>
      client.responses.create({ model, ...body } as OpenAI.Responses.ResponseCreateParamsNonStreaming),
  ],
];

describe("[LLM-1] the OpenAI surface", () => {
  let server: TestLlmServer;
  let provider: ScriptedProvider;
  let local: LocalServer;
  const targets = new Map<Where, Target>();
  const target = (where: Where): Target => {
    const found = targets.get(where);
    if (found === undefined) throw new Error("not started");
    return found;
  };

  beforeAll(async () => {
    provider = await startScriptedProvider();
    provider.script({
      prompt: "[[tool]]",
      reply: { toolCalls: [{ name: SCRIPTED.toolName, arguments: { city: "Rome" } }] },
    });
    local = await startLocalServer();
    server = local.server;
    const owner = await server.user();
    const remote = await server.user({
      provider: { base_url: provider.baseUrl, api_key: "sk-conformance-01" },
    });
    const lastRequest = () => provider.requests.at(-1);
    targets.set("local", {
      where: "local",
      client: owner.client,
      model: "tiny-scripted",
      embedder: "tiny-bert",
      lastRequest: () => undefined,
    });
    targets.set("remote", {
      where: "remote",
      client: remote.client,
      model: "scripted",
      embedder: "scripted",
      lastRequest,
    });
  });
  afterAll(async () => {
    await local?.[Symbol.asyncDispose]();
    await provider?.close();
  });

  for (const where of ["local", "remote"] as const) {
    describe(where, () => {
      for (const [features, ask] of groups) {
        for (const feature of features) {
          it(`${feature.endpoint} ${feature.name}: ${feature.outcome[where]}`, () =>
            prove(feature, target(where), ask));
        }
      }

      it("chat streams what it says whole, with usage when asked", async () => {
        const { client, model } = target(where);
        const body = { model, ...CHAT };
        const whole = await client.chat.completions.create(body);
        const chunks = await collect(
          await client.chat.completions.create({
            ...body,
            stream: true,
            stream_options: { include_usage: true },
          }),
        );
        const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
        expect(text).toBe(whole.choices[0]?.message.content);
        expect(chunks.at(-1)).toMatchObject({
          choices: [],
          usage: { completion_tokens: expect.any(Number) },
        });
        expect(chunks.at(-1)?.usage?.completion_tokens).toBe(whole.usage?.completion_tokens);
        const plain = await collect(await client.chat.completions.create({ ...body, stream: true }));
        expect(plain.every((chunk) => chunk.usage === undefined || chunk.usage === null)).toBe(true);
      });

      it("the client's own accumulator takes a streamed tool call", async () => {
        const { client, model } = target(where);
        const messages = [{ role: "user" as const, content: "[[tool]] The weather in Rome?" }];
        const stream = client.chat.completions.stream({ model, messages, tools: [weather] });
        const message = await stream.finalMessage();
        const [call] = message.tool_calls ?? [];
        expect(call).toMatchObject({ type: "function", function: { name: SCRIPTED.toolName } });
        if (call?.type === "function") expect(JSON.parse(call.function.arguments)).toEqual({ city: "Rome" });
      });

      it("completions stream what they say whole", async () => {
        const { client, model } = target(where);
        const body = { model, prompt: SCRIPTED.counting[0] ?? "", max_tokens: 4 };
        const whole = await client.completions.create(body);
        const chunks = await collect(await client.completions.create({ ...body, stream: true }));
        expect(chunks.map((chunk) => chunk.choices[0]?.text ?? "").join("")).toBe(whole.choices[0]?.text);
        expect(chunks.at(-1)?.choices[0]?.finish_reason).toBe(whole.choices[0]?.finish_reason);
      });

      it("responses stream what they say whole, through the client's accumulator", async () => {
        const { client, model } = target(where);
        const whole = await client.responses.create({ model, input: "Hallo" });
        const streamed = await client.responses.stream({ model, input: "Hallo" }).finalResponse();
        expect(streamed.output_text).toBe(whole.output_text);
        expect(streamed.usage?.output_tokens).toBe(whole.usage?.output_tokens);
      });

      it("embeddings come as vectors through the client's base64 default", async () => {
        const { client, embedder } = target(where);
        const answer = await client.embeddings.create({ model: embedder, input: ["eins", "zwei"] });
        expect(answer.data.map(({ embedding }) => embedding.length > 1)).toEqual([true, true]);
        expect(answer.usage.prompt_tokens).toBeGreaterThan(1);
      });

      it("errors have OpenAI's envelope and types", async () => {
        const { client, model } = target(where);
        const missing = client.chat.completions.create({
          model,
        } as OpenAI.ChatCompletionCreateParamsNonStreaming);
        await expect(missing).rejects.toMatchObject({
          status: 400,
          type: "invalid_request_error",
          param: "messages",
        });
        await expect(server.client("sk-nobody").models.list()).rejects.toMatchObject({
          status: 401,
          code: "invalid_api_key",
        });
      });
    });
  }

  it("GET /v1/models lists the local models and finds one", async () => {
    const { client } = target("local");
    const ids = (await client.models.list()).data.map(({ id }) => id);
    expect(ids).toEqual(expect.arrayContaining(["demo", "tiny-scripted", "tiny-bert"]));
    expect(await client.models.retrieve("tiny-scripted")).toMatchObject({
      object: "model",
      owned_by: "local",
    });
    await expect(client.models.retrieve("no/such")).rejects.toMatchObject({ status: 404 });
  });

  it("a name nobody has is model_not_found", async () => {
    const user = await server.user({
      provider: { base_url: provider.baseUrl, api_key: "sk-conformance-02", models: ["listed"] },
    });
    await expect(user.client.chat.completions.create({ model: "unlisted", ...CHAT })).rejects.toMatchObject({
      status: 404,
      code: "model_not_found",
      param: "model",
    });
  });

  it(`${DOCS} shows the table these tests are made of (CDS_WRITE_DOCS=1 writes it)`, async () => {
    const table = `${BEGIN}\n\n${tableOf(groups.flatMap(([features]) => features))}\n${END}`;
    const text = await readFile(DOCS, "utf8");
    const [before, rest = ""] = text.split(BEGIN);
    const after = rest.slice(rest.indexOf(END) + END.length);
    const wanted = `${before}${table}${after}`;
    if (process.env.CDS_WRITE_DOCS === "1") await writeFile(DOCS, wanted);
    else expect(text).toBe(wanted);
  });
});
