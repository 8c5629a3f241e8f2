import type OpenAI from "openai";
import { expect } from "vitest";
import { SCRIPTED } from "../support/gguf/index.ts";
import { weather } from "./chat-features.ts";
import type { Feature, Outcome, Where } from "./feature.ts";

const both = (local: Outcome, remote: Outcome = "passed on"): Record<Where, Outcome> => ({ local, remote });

function features<A>(endpoint: string) {
  return (
    name: string,
    outcome: Record<Where, Outcome>,
    body: Record<string, unknown>,
    rest: Partial<Pick<Feature, "param">> & { check?: (answer: A) => void } = {},
  ): Feature => ({ endpoint, name, outcome, body, ...rest }) as Feature;
}

const completion = features<OpenAI.Completion>("POST /v1/completions");
const embedding = features<OpenAI.CreateEmbeddingResponse>("POST /v1/embeddings");
const response = features<OpenAI.Responses.Response>("POST /v1/responses");

const count = SCRIPTED.counting;

export const completionFeatures: readonly Feature[] = [
  completion(
    "`prompt`: text",
    both("yes"),
    { prompt: count[0], max_tokens: 3 },
    {
      check: (answer) => expect(answer.choices[0]?.text).toBe(count.slice(1, 4).join("")),
    },
  ),
  completion(
    "`prompt`: several texts",
    both("yes"),
    { prompt: [count[0], count[3]], max_tokens: 2 },
    {
      check: (answer) =>
        expect(answer.choices.map(({ text }) => text)).toEqual([
          count.slice(1, 3).join(""),
          count.slice(4, 6).join(""),
        ]),
    },
  ),
  completion(
    "`prompt`: token ids",
    both("yes"),
    { prompt: [72, 73, 74], max_tokens: 2 },
    {
      check: (answer) => expect(answer.usage?.prompt_tokens).toBe(3),
    },
  ),
  completion(
    "`max_tokens` (16 unless told)",
    both("yes"),
    { prompt: count[0] },
    {
      check: (answer) => expect(answer.usage?.completion_tokens).toBe(16),
    },
  ),
  completion(
    "`n`",
    both("yes"),
    { prompt: count[0], n: 2, max_tokens: 2 },
    {
      check: (answer) => expect(answer.choices.map(({ index }) => index)).toEqual([0, 1]),
    },
  ),
  completion("`best_of`", both("refused"), { best_of: 2, prompt: count[0] }),
  completion(
    "`echo`",
    both("yes"),
    { prompt: count[0], echo: true, max_tokens: 1 },
    {
      check: (answer) => expect(answer.choices[0]?.text).toBe(count.slice(0, 2).join("")),
    },
  ),
  completion(
    "`stop`",
    both("yes"),
    { prompt: count[0], stop: count[3] },
    {
      check: (answer) => expect(answer.choices[0]?.text).toBe(count.slice(1, 3).join("")),
    },
  ),
  completion(
    "`logprobs`",
    both("yes"),
    { prompt: count[0], logprobs: 2, max_tokens: 2, temperature: 0 },
    {
      check(answer) {
        const { tokens, token_logprobs, top_logprobs, text_offset } = answer.choices[0]?.logprobs ?? {};
        expect(tokens).toEqual(count.slice(1, 3));
        expect(token_logprobs).toHaveLength(2);
        expect(Object.keys(top_logprobs?.[0] ?? {})).toHaveLength(2);
        expect(text_offset).toEqual([0, count[1]?.length]);
      },
    },
  ),
  completion("`temperature`, `top_p`, `seed`, penalties, `logit_bias`", both("yes"), {
    prompt: count[0],
    temperature: 0.2,
    top_p: 0.9,
    seed: 1,
    presence_penalty: 0.1,
    frequency_penalty: 0.1,
    logit_bias: { "5": -1 },
  }),
];

const lengthOf = (vector: readonly number[]) => Math.hypot(...vector);

export const embeddingFeatures: readonly Feature[] = [
  embedding(
    "`input`: text",
    both("yes"),
    { input: "Rathaus", encoding_format: "float" },
    {
      check: (answer) => expect(lengthOf(answer.data[0]?.embedding ?? [])).toBeCloseTo(1, 4),
    },
  ),
  embedding(
    "`input`: several texts",
    both("yes"),
    { input: ["a", "b", "a"], encoding_format: "float" },
    {
      check(answer) {
        expect(answer.data.map(({ index }) => index)).toEqual([0, 1, 2]);
        expect(answer.data[0]?.embedding).toEqual(answer.data[2]?.embedding);
        expect(answer.data[0]?.embedding).not.toEqual(answer.data[1]?.embedding);
      },
    },
  ),
  embedding("`input`: token ids", both("yes"), { input: [2, 10, 11, 3], encoding_format: "float" }),
  embedding(
    "`encoding_format`: base64",
    both("yes"),
    { encoding_format: "base64", input: "Rathaus" },
    {
      check: (answer) => expect(typeof answer.data[0]?.embedding).toBe("string"),
    },
  ),
  embedding("`dimensions` other than the model's", both("refused"), { dimensions: 7, input: "a" }),
];

const everywhere = (outcome: Outcome): Record<Where, Outcome> => ({ local: outcome, remote: outcome });

export const responseFeatures: readonly Feature[] = [
  response(
    "`input`: text",
    everywhere("yes"),
    { input: "Hallo" },
    {
      check(answer) {
        expect(answer.status).toBe("completed");
        expect(answer.output_text.length).toBeGreaterThan(0);
      },
    },
  ),
  response(
    "`input`: items, `instructions`",
    everywhere("yes"),
    {
      instructions: "Be short.",
      input: [{ role: "user", content: [{ type: "input_text", text: "Hallo" }] }],
    },
    { check: (answer) => expect(answer.output_text.length).toBeGreaterThan(0) },
  ),
  response(
    "`tools` of type function",
    everywhere("yes"),
    {
      input: "[[tool]] The weather in Rome?",
      tools: [{ type: "function", strict: true, ...weather.function }],
    },
    {
      check: (answer) =>
        expect(answer.output).toContainEqual(
          expect.objectContaining({ type: "function_call", name: SCRIPTED.toolName }),
        ),
    },
  ),
  response(
    "tools of other types",
    everywhere("refused"),
    { tools: [{ type: "web_search" }], input: "x" },
    {
      param: "tools[0].type",
    },
  ),
  response(
    "`max_output_tokens`",
    everywhere("yes"),
    { max_output_tokens: 2, input: "count forever" },
    {
      check: (answer) => expect(answer.usage?.output_tokens).toBeGreaterThan(0),
    },
  ),
  response("`text.format`: json_schema", everywhere("yes"), {
    input: "Hallo",
    text: {
      format: {
        type: "json_schema",
        name: "place",
        strict: true,
        schema: {
          type: "object",
          properties: { city: { enum: ["Rome"] } },
          required: ["city"],
          additionalProperties: false,
        },
      },
    },
  }),
  response(
    "`metadata`",
    everywhere("yes"),
    { metadata: { a: "b" }, input: "x" },
    {
      check: (answer) => expect(answer.metadata).toEqual({ a: "b" }),
    },
  ),
  response("`store`", everywhere("no effect"), { store: true, input: "x" }),
  response("`previous_response_id`", everywhere("refused"), { previous_response_id: "resp_1", input: "x" }),
  response("`conversation`", everywhere("refused"), { conversation: "conv_1", input: "x" }),
  response("`background`", everywhere("refused"), { background: true, input: "x" }),
];
