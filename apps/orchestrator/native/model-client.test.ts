import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent } from "undici";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ModelCall, type ModelDelta, runTurn } from "#agents/loop/index.ts";
import { MemoryHost } from "#agents/testing/memory-host.ts";
import { tools } from "#agents/tools/index.ts";
import { createLogger } from "#platform/log.ts";
import { AppError } from "#schemas";
import { type ScriptedProvider, startScriptedProvider } from "#tests/support/provider.ts";
import { ModelClient, type ModelClientOptions } from "./model-client.ts";

let provider: ScriptedProvider;
let dispatcher: Agent;

beforeAll(async () => {
  provider = await startScriptedProvider();
  dispatcher = new Agent();
});
afterAll(async () => {
  await dispatcher.destroy();
  await provider.close();
});

function open(token: string, options: Partial<ModelClientOptions> = {}) {
  let activity = 0;
  const client = new ModelClient({
    llmUrl: provider.baseUrl,
    dispatcher,
    token,
    model: "real-model",
    maxModelCalls: 3,
    maxOutputTokens: 100,
    timeoutMs: 30_000,
    onActivity: () => void activity++,
    log: createLogger({ level: "silent", pretty: false }),
    ...options,
  });
  return { client, activity: () => activity };
}

const call = (prompt: string, more: Partial<ModelCall> = {}): ModelCall => ({
  messages: [{ role: "user", content: prompt }],
  tools: [],
  maxOutputTokens: 5000,
  ...more,
});
const never = new AbortController().signal;

async function all(stream: AsyncIterable<ModelDelta>): Promise<ModelDelta[]> {
  const deltas: ModelDelta[] = [];
  for await (const delta of stream) deltas.push(delta);
  return deltas;
}
const said = (deltas: readonly ModelDelta[]) =>
  deltas.map((delta) => (delta.type === "text" ? delta.text : "")).join("");

/** A server that streams exactly these events. */
async function serving(events: readonly string[]) {
  const server = createServer((_, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.end(events.map((event) => `data: ${event}\n\n`).join(""));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const llmUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`;
  const close = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  return { llmUrl, [Symbol.asyncDispose]: async () => void (await close()) };
}

describe("model client", () => {
  it("[MU-4] speaks with the task's token and model, and asks for no more than it may have", async () => {
    const { client, activity } = open("native-1");
    const deltas = await all(client.stream(call("[[text:hello there]]", { temperature: 0.2 }), never));
    expect(said(deltas)).toBe("hello there");
    expect(deltas.slice(-2)).toEqual([
      { type: "finish", reason: "stop" },
      { type: "usage", input_tokens: expect.any(Number), output_tokens: 2 },
    ]);
    const [seen] = provider.requestsOf("native-1");
    expect(seen?.body).toMatchObject({
      model: "real-model",
      max_tokens: 100,
      temperature: 0.2,
      stream: true,
      stream_options: { include_usage: true },
    });
    expect(seen?.body.tools).toBeUndefined();
    expect(activity()).toBeGreaterThan(1);
    expect(client.error).toBeUndefined();
  });

  it("carries a whole turn: tools offered, calls in pieces, outcomes told", async () => {
    const { client } = open("native-turn");
    const host = new MemoryHost();
    host.onExec = async () => ({ output: "12 result.txt" });
    const end = await runTurn({
      model: client,
      tools,
      host,
      messages: [{ role: "user", content: "[[content:héllo]] Write it." }],
      limits: { maxSteps: 10, maxOutputTokens: 100, toolOutputChars: 1000 },
      context: { maxTokens: 10_000 },
      onEvent: () => undefined,
      signal: never,
    });
    expect(end).toMatchObject({ reason: "end_turn", answer: "Done: wrote result.txt in 2 steps.", steps: 3 });
    expect(host.text("result.txt")).toBe("héllo\n");
    const requests = provider.requestsOf("native-turn");
    expect(requests).toHaveLength(3);
    expect(requests[2]?.body.messages?.map(({ role }) => role)).toEqual([
      "user",
      "assistant",
      "tool",
      "assistant",
      "tool",
    ]);
    const reported = provider.totals("native-turn");
    expect(end.usage).toEqual({
      input_tokens: reported.prompt_tokens,
      output_tokens: reported.completion_tokens,
    });
  });

  it("makes no more calls than a task may", async () => {
    const { client } = open("native-calls");
    for (let made = 0; made < 3; made += 1) await all(client.stream(call("x"), never));
    await expect(all(client.stream(call("x"), never))).rejects.toMatchObject({
      code: "RunFailed",
      message: "The task has made all 3 model calls it may make.",
    });
    expect(provider.requestsOf("native-calls")).toHaveLength(3);
    expect(client.error?.code).toBe("RunFailed");
  });

  it.each([
    ["429", "RateLimited"],
    ["500", "ProviderError"],
    ["503", "Unavailable"],
    ["400", "ProviderError"],
    ["reset", "Unavailable"],
    ["html", "ProviderError"],
    ["redirect", "ProviderError"],
    ["half-chunk", "ProviderError"],
    ["no-done", "ProviderError"],
    ["error-event", "ProviderError"],
  ])("tells %s as the bridge does, and asks once", async (fault, code) => {
    const { client } = open(`native-${fault}`);
    await expect(all(client.stream(call(`[[${fault}]][[text:one two three]]`), never))).rejects.toMatchObject(
      {
        name: "AppError",
        code,
        details: { hint: expect.any(String) },
      },
    );
    expect(client.error?.code).toBe(code);
    expect(provider.requestsOf(`native-${fault}`)).toHaveLength(1);
    // A later call that goes well is the last word.
    await all(client.stream(call("x"), never));
    expect(client.error).toBeUndefined();
  });

  it.each(["hang", "hang-stream"])("gives up on a model that is silent (%s)", async (fault) => {
    const { client } = open(`native-silent-${fault}`, { timeoutMs: 200 });
    const asked = all(client.stream(call(`[[${fault}]][[text:one two three]]`), never));
    await expect(asked).rejects.toMatchObject({ code: "ProviderTimeout" });
  });

  it.each(["hang", "hang-stream"])("closes the connection at once when it is aborted (%s)", async (fault) => {
    const token = `native-abort-${fault}`;
    const { client } = open(token);
    const cancel = new AbortController();
    const reason = new AppError("Cancelled", "The task was cancelled.");
    const asked = all(client.stream(call(`[[${fault}]][[text:one two three]]`), cancel.signal));
    asked.catch(() => undefined);
    while (provider.requestsOf(token).length === 0) await sleep(5);
    cancel.abort(reason);
    await expect(asked).rejects.toBe(reason);
    await expectAborted(token);
    expect(client.error).toBeUndefined();
  });

  it("closes the connection when nobody reads on", async () => {
    const { client } = open("native-unread");
    for await (const delta of client.stream(call("[[hang-stream]][[text:one two three]]"), never)) {
      if (delta.type === "text") break;
    }
    await expectAborted("native-unread");
  });

  it("tells thoughts, numbers calls that nobody has numbered, and heeds nothing after the end", async () => {
    const delta = (fields: object, finish: string | null = null) =>
      JSON.stringify({ choices: [{ delta: fields, finish_reason: finish }] });
    await using server = await serving([
      delta({ reasoning_content: "hm" }),
      delta({ content: null, tool_calls: [{ id: "a", function: { name: "read", arguments: "" } }] }),
      delta({ tool_calls: [{ function: { arguments: "{}" } }] }),
      delta({ tool_calls: [{ id: "b", function: { name: "list", arguments: "{}" } }, 5, null] }),
      delta({}, "tool_calls"),
      JSON.stringify({ choices: [], usage: { prompt_tokens: -1, completion_tokens: "x" } }),
      JSON.stringify({ error: { message: "too late" } }),
      "[DONE]",
      delta({ content: "more" }),
    ]);
    const { client } = open("x", { llmUrl: server.llmUrl });
    const deltas = await all(client.stream(call("x"), never));
    expect(deltas.filter(({ type }) => type !== "call")).toEqual([
      { type: "thought", text: "hm" },
      { type: "finish", reason: "tool_calls" },
    ]);
    expect(deltas.filter(({ type }) => type === "call").slice(0, 3)).toEqual([
      { type: "call", index: 0, id: "a", name: "read", arguments: "" },
      { type: "call", index: 0, arguments: "{}" },
      { type: "call", index: 1, id: "b", name: "list", arguments: "{}" },
    ]);
  });

  it.each([
    ["nested without end", `{"choices":${"[".repeat(20_000)}${"]".repeat(20_000)}}`],
    ["no JSON", "{not json"],
    ["no object", "5"],
  ])("takes an event that is %s for a broken answer", async (_name, event) => {
    await using server = await serving([event]);
    const { client } = open("x", { llmUrl: server.llmUrl });
    await expect(all(client.stream(call("x"), never))).rejects.toMatchObject({ code: "ProviderError" });
  });
});

async function expectAborted(token: string): Promise<void> {
  for (const end = performance.now() + 30_000; performance.now() < end; await sleep(10)) {
    if (provider.requestsOf(token).every((seen) => seen.aborted)) return;
  }
  throw new Error("the connection is still open");
}
