import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, jsonSchema, Output, stepCountIs, streamText, tool } from "ai";
import { scanEndpoint } from "compatcanary";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { SCRIPTED } from "../support/gguf/index.ts";
import { type LocalServer, startLocalServer } from "../support/local-models.ts";

/** Other people's clients against a real local model. */
describe("[LLM-1] clients that were not written for us", () => {
  let local: LocalServer;
  let api_key: string;
  beforeAll(async () => {
    local = await startLocalServer();
    ({ api_key } = await local.server.user());
  });
  afterAll(() => local?.[Symbol.asyncDispose]());

  for (const profile of ["chat", "modern"] as const) {
    it(`compatcanary gives 100 of 100 for ${profile}`, async () => {
      const report = await scanEndpoint({
        ...{ baseUrl: local.server.url, apiKey: api_key, model: "tiny-scripted", profile },
        timeoutMs: 60_000,
      });
      expect(report.results.filter(({ status }) => status !== "pass")).toEqual([]);
      expect(report).toMatchObject({ score: 100, compatible: true });
    });
  }

  const provider = () =>
    createOpenAICompatible({
      ...{ name: "studio", baseURL: local.server.url, apiKey: api_key, includeUsage: true },
      supportsStructuredOutputs: true,
    });
  const city = jsonSchema<{ city: string }>({
    type: "object",
    properties: { city: { type: "string", enum: ["Rome", "Paris"] } },
    required: ["city"],
    additionalProperties: false,
  });

  it("the AI SDK generates and streams text, with usage", async () => {
    const model = provider()("tiny-scripted");
    const { text, usage } = await generateText({ model, prompt: "Hallo", maxRetries: 0 });
    expect(text).toBe(SCRIPTED.plain);
    expect(usage.outputTokens).toBeGreaterThan(0);
    const streamed = streamText({ model, prompt: "Hallo", maxRetries: 0 });
    let joined = "";
    for await (const part of streamed.textStream) joined += part;
    expect(joined).toBe(SCRIPTED.plain);
    expect((await streamed.usage).outputTokens).toBe(usage.outputTokens);
  });

  it("the AI SDK's tool loop calls, answers and ends", async () => {
    const asked: string[] = [];
    const { text, steps } = await generateText({
      ...{ model: provider()("tiny-scripted"), prompt: "The weather in Rome?", maxRetries: 0 },
      stopWhen: stepCountIs(3),
      tools: {
        [SCRIPTED.toolName]: tool({
          description: "The weather of a city.",
          inputSchema: jsonSchema<{ city: string }>({
            type: "object",
            properties: { city: { type: "string" } },
            required: ["city"],
          }),
          execute: async (input) => {
            asked.push(input.city);
            return "sunny";
          },
        }),
      },
    });
    expect(asked).toEqual(["Rome"]);
    expect(steps).toHaveLength(2);
    expect(text).toBe(SCRIPTED.afterTool);
  });

  it("the AI SDK gets an object of its schema, and vectors", async () => {
    const { output } = await generateText({
      ...{ model: provider()("tiny-scripted"), prompt: "Where?", maxRetries: 0, maxOutputTokens: 200 },
      output: Output.object({ schema: city }),
    });
    expect(["Rome", "Paris"]).toContain(output.city);
    const model = provider().embeddingModel("tiny-bert");
    const { embeddings, usage } = await embedMany({ model, values: ["eins", "zwei"], maxRetries: 0 });
    expect(embeddings.map((vector) => Math.hypot(...vector).toFixed(3))).toEqual(["1.000", "1.000"]);
    expect(usage.tokens).toBeGreaterThan(1);
  });
});
