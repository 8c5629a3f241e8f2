import type OpenAI from "openai";
import { expect } from "vitest";
import { SCRIPTED } from "../support/gguf/index.ts";
import type { Feature, Outcome, Where } from "./feature.ts";

type Chat = OpenAI.ChatCompletion;
type Message = Record<string, unknown>;

const ENDPOINT = "POST /v1/chat/completions";
const both = (local: Outcome, remote: Outcome = "passed on"): Record<Where, Outcome> => ({ local, remote });
const user = (content: unknown): Message[] => [{ role: "user", content }];
const textOf = (answer: Chat, index = 0) => answer.choices[index]?.message.content ?? "";
const endless = { messages: user("count forever") };

export const weather = {
  type: "function",
  function: {
    name: SCRIPTED.toolName,
    description: "The weather of a city.",
    parameters: {
      type: "object",
      properties: { city: { type: "string" } },
      required: ["city"],
      additionalProperties: false,
    },
  },
} as const;
const called = (answer: Chat) => {
  const [call] = answer.choices[0]?.message.tool_calls ?? [];
  expect(answer.choices[0]?.finish_reason).toBe("tool_calls");
  expect(call).toMatchObject({ type: "function", function: { name: SCRIPTED.toolName } });
  if (call?.type === "function") expect(typeof JSON.parse(call.function.arguments).city).toBe("string");
};
const schema = {
  type: "object",
  properties: { city: { enum: ["Rome", "Paris"] } },
  required: ["city"],
  additionalProperties: false,
};

function feature(
  name: string,
  outcome: Record<Where, Outcome>,
  body: Record<string, unknown>,
  rest: Partial<Pick<Feature, "param">> & { check?: (answer: Chat) => void } = {},
): Feature {
  return { endpoint: ENDPOINT, name, outcome, body, ...rest } as Feature;
}

const roles: Feature[] = [
  feature(
    "`messages`: system, user",
    both("yes"),
    {
      messages: [{ role: "system", content: "Be short." }, ...user("Hallo")],
    },
    { check: (answer) => expect(textOf(answer)).toBe(SCRIPTED.plain) },
  ),
  feature(
    "`messages`: developer",
    both("yes"),
    {
      messages: [{ role: "developer", content: "Be short." }, ...user("Hallo")],
    },
    { check: (answer) => expect(textOf(answer)).toBe(SCRIPTED.plain) },
  ),
  feature(
    "`messages`: assistant (earlier turns)",
    both("yes"),
    {
      messages: [...user("Hallo"), { role: "assistant", content: "Ja?" }, ...user("Noch einmal")],
    },
    { check: (answer) => expect(textOf(answer)).toBe(SCRIPTED.plain) },
  ),
  feature(
    "`messages`: tool results",
    both("yes"),
    {
      messages: [
        ...user("The weather in Paris?"),
        {
          role: "assistant",
          content: null,
          tool_calls: [
            {
              id: "call_1",
              type: "function",
              function: { name: SCRIPTED.toolName, arguments: SCRIPTED.toolArguments },
            },
          ],
        },
        { role: "tool", tool_call_id: "call_1", content: "sunny" },
      ],
      tools: [weather],
    },
    { check: (answer) => expect(textOf(answer)).toBe(SCRIPTED.afterTool) },
  ),
  feature(
    "`messages`: content as text parts",
    both("yes"),
    {
      messages: user([{ type: "text", text: "Hallo" }]),
    },
    { check: (answer) => expect(textOf(answer)).toBe(SCRIPTED.plain) },
  ),
  feature(
    "`messages`: images",
    both("refused"),
    {
      messages: user([{ type: "image_url", image_url: { url: "data:image/png;base64,AAAA" } }]),
    },
    { param: "messages[0].content" },
  ),
];

const lengths: Feature[] = [
  feature(
    "`max_tokens`",
    both("yes"),
    { ...endless, max_tokens: 3 },
    {
      check(answer) {
        expect(answer.choices[0]?.finish_reason).toBe("length");
        expect(answer.usage?.completion_tokens).toBe(3);
      },
    },
  ),
  feature(
    "`max_completion_tokens`",
    both("yes"),
    { ...endless, max_completion_tokens: 4 },
    {
      check: (answer) => expect(answer.usage?.completion_tokens).toBe(4),
    },
  ),
  feature(
    "`stop`",
    both("yes"),
    { stop: [" tiny"] },
    {
      check(answer) {
        expect(textOf(answer)).toBe(SCRIPTED.plain.slice(0, SCRIPTED.plain.indexOf(" tiny")));
        expect(answer.choices[0]?.finish_reason).toBe("stop");
      },
    },
  ),
  feature(
    "`n`",
    both("yes"),
    { n: 3 },
    {
      check(answer) {
        expect(answer.choices.map(({ index }) => index)).toEqual([0, 1, 2]);
        for (const index of [0, 1, 2]) expect(textOf(answer, index)).toBe(SCRIPTED.plain);
      },
    },
  ),
];

const sampling: Feature[] = [
  feature(
    "`temperature`",
    both("yes"),
    { temperature: 0 },
    {
      check: (answer) => expect(textOf(answer)).toBe(SCRIPTED.plain),
    },
  ),
  feature("`top_p`", both("yes"), { top_p: 0.5, temperature: 0.7 }),
  feature("`top_k`, `min_p`, `repetition_penalty`", both("yes"), {
    top_k: 20,
    min_p: 0.05,
    repetition_penalty: 1.01,
  }),
  feature("`seed`", both("yes"), { seed: 42, temperature: 1 }),
  feature("`frequency_penalty`, `presence_penalty`", both("yes"), {
    frequency_penalty: 0.1,
    presence_penalty: 0.1,
  }),
  feature(
    "`logit_bias`",
    both("yes"),
    { logit_bias: { "5": -100 } },
    {
      check: (answer) => expect(textOf(answer)).toBe(SCRIPTED.plain),
    },
  ),
  feature(
    "`logprobs`, `top_logprobs`",
    both("yes"),
    { logprobs: true, top_logprobs: 2, temperature: 0 },
    {
      check(answer) {
        const tokens = answer.choices[0]?.logprobs?.content ?? [];
        expect(tokens.map(({ token }) => token).join("")).toBe(SCRIPTED.plain);
        for (const { logprob, top_logprobs, token } of tokens) {
          expect(logprob).toBeLessThanOrEqual(0);
          expect(top_logprobs).toHaveLength(2);
          expect(top_logprobs[0]?.token).toBe(token);
        }
      },
    },
  ),
  feature(
    "`logprobs` with `tools` (of text, not of calls)",
    both("yes"),
    { logprobs: true, tools: [weather] },
    {
      check: called,
    },
  ),
];

const tools: Feature[] = [
  feature("`tools`", both("yes"), { tools: [weather] }, { check: called }),
  feature(
    '`tool_choice`: "none"',
    both("yes"),
    { tools: [weather], tool_choice: "none" },
    {
      check: (answer) => expect(answer.choices[0]?.message.tool_calls).toBeUndefined(),
    },
  ),
  feature('`tool_choice`: "auto"', both("yes"), { tools: [weather], tool_choice: "auto" }, { check: called }),
  feature(
    '`tool_choice`: "required"',
    both("yes"),
    { tools: [weather], tool_choice: "required" },
    {
      check: called,
    },
  ),
  feature(
    "`tool_choice`: a function",
    both("yes"),
    {
      tools: [weather],
      tool_choice: { type: "function", function: { name: SCRIPTED.toolName } },
    },
    { check: called },
  ),
  feature(
    "`parallel_tool_calls`: false",
    both("yes"),
    { tools: [weather], parallel_tool_calls: false },
    {
      check: (answer) => expect(answer.choices[0]?.message.tool_calls).toHaveLength(1),
    },
  ),
  feature("`functions`, `function_call`", both("refused"), { functions: [weather.function] }),
];

const formats: Feature[] = [
  feature(
    "`response_format`: json_object",
    both("yes"),
    {
      response_format: { type: "json_object" },
      max_tokens: 200,
    },
    { check: (answer) => expect(typeof JSON.parse(textOf(answer))).toBe("object") },
  ),
  feature(
    "`response_format`: json_schema",
    both("yes"),
    {
      response_format: { type: "json_schema", json_schema: { name: "place", strict: true, schema } },
      max_tokens: 200,
    },
    { check: (answer) => expect(["Rome", "Paris"]).toContain(JSON.parse(textOf(answer)).city) },
  ),
  feature("`audio`", both("refused"), { audio: { voice: "alloy", format: "wav" } }),
  feature(
    '`modalities` with "audio"',
    both("refused"),
    { modalities: ["text", "audio"] },
    {
      param: "modalities[1]",
    },
  ),
  feature("`web_search_options`", both("refused"), { web_search_options: {} }),
  feature("`user`, `metadata`, `store`, `service_tier`, `reasoning_effort`", both("no effect"), {
    user: "u1",
    metadata: { a: "b" },
    store: false,
    service_tier: "auto",
    reasoning_effort: "low",
  }),
];

export const chatFeatures: readonly Feature[] = [...roles, ...lengths, ...sampling, ...tools, ...formats];
