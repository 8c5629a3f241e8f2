import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ScriptedProvider, startScriptedProvider } from "./provider.ts";

const tools: OpenAI.ChatCompletionTool[] = [
  ["write", ["filePath", "content"]] as const,
  ["bash", ["command", "description"]] as const,
].map(([name, keys]) => ({
  type: "function",
  function: {
    name,
    parameters: {
      type: "object",
      properties: Object.fromEntries(keys.map((key) => [key, { type: "string" }])),
    },
  },
}));

describe("scripted provider", () => {
  let provider: ScriptedProvider;
  const client = (apiKey: string) => new OpenAI({ apiKey, baseURL: provider.baseUrl, maxRetries: 0 });

  beforeAll(async () => {
    provider = await startScriptedProvider();
  });
  afterAll(() => provider.close());

  it("streams text and counts what it reported, per key", async () => {
    const stream = await client("sk-a").chat.completions.create({
      model: "m",
      stream: true,
      stream_options: { include_usage: true },
      messages: [{ role: "user", content: "Hello [[text:one two three]]" }],
    });
    let text = "";
    let usage: OpenAI.CompletionUsage | null | undefined;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? "";
      usage = chunk.usage ?? usage;
    }
    expect(text).toBe("one two three");
    expect(usage?.completion_tokens).toBe(3);
    expect(provider.totals("sk-a")).toMatchObject({ completion_tokens: 3, requests: 1 });
    expect(provider.totals("sk-b").requests).toBe(0);
  });

  it("does the task of three steps with the offered tools' own parameter names", async () => {
    const messages: OpenAI.ChatCompletionMessageParam[] = [
      { role: "user", content: "Go [[file:a.txt]] [[content:x]]" },
    ];
    const names: string[] = [];
    for (;;) {
      const answer = await client("sk-c").chat.completions.create({ model: "m", messages, tools });
      const message = answer.choices[0]?.message;
      const call = message?.tool_calls?.[0];
      if (message === undefined || call?.type !== "function") break;
      names.push(`${call.function.name} ${call.function.arguments}`);
      messages.push(message, { role: "tool", tool_call_id: call.id, content: "ok" });
    }
    expect(names[0]).toBe('write {"filePath":"a.txt","content":"x\\n"}');
    expect(names[1]).toContain("bash");
    expect(names).toHaveLength(2);
  });

  it("misbehaves so many times, then behaves", async () => {
    const call = () =>
      client("sk-d").chat.completions.create({
        model: "m",
        messages: [{ role: "user", content: "[[500x1]]" }],
      });
    await expect(call()).rejects.toThrow("500");
    await expect(call()).resolves.toBeDefined();
  });

  it("obeys rules by key before all else", async () => {
    provider.script({ key: "sk-e", reply: { fault: "429", retryAfterSeconds: 7 } });
    const error = await client("sk-e")
      .models.list()
      .then(() =>
        client("sk-e")
          .chat.completions.create({ model: "m", messages: [{ role: "user", content: "x" }] })
          .catch((e) => e),
      );
    expect(error.status).toBe(429);
    expect(error.headers.get("retry-after")).toBe("7");
  });
});
