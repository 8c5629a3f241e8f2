import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { findUser, setProvider } from "#database";
import { collect, type LlmUser, startLlmServer, type TestLlmServer } from "#tests/support/llm-server.ts";
import { type ScriptedProvider, startScriptedProvider } from "#tests/support/provider.ts";

const KEY = "sk-chat-0123456789abcdefghijklmnop";
const ask = (content: string) => ({ model: "gpt-test", messages: [{ role: "user" as const, content }] });

describe("chat completions", () => {
  let provider: ScriptedProvider;
  let server: TestLlmServer;
  let user: LlmUser;

  beforeAll(async () => {
    provider = await startScriptedProvider();
    server = await startLlmServer({ CDS_MAX_TOKENS: "1000" });
    user = await server.user({ provider: { base_url: provider.baseUrl, api_key: KEY } });
  });
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
    await provider?.close();
  });

  const post = (body: unknown, headers: Record<string, string> = {}) =>
    fetch(`${server.url}/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${user.api_key}`, ...headers },
      body: typeof body === "string" ? body : JSON.stringify(body),
    });

  it("[US-3][LLM-4] answers whole, charged with the provider's own figures before the answer is out", async () => {
    const me = await server.user({ provider: { base_url: provider.baseUrl, api_key: "sk-own-key-1" } });
    const answer = await me.client.chat.completions.create(ask("[[text:alpha beta gamma]]"));
    expect(answer.choices[0]?.message.content).toBe("alpha beta gamma");
    const truth = provider.totals("sk-own-key-1");
    const { balance, held, used } = await server.account(me.user_id);
    expect(used).toEqual([
      {
        input_tokens: truth.prompt_tokens,
        output_tokens: 3,
        cached_tokens: truth.cached_tokens,
        cost_microcredits: truth.prompt_tokens + 12,
        counted_by: "provider",
      },
    ]);
    expect(held).toBe(0);
    expect(balance).toBe(10_000_000 - truth.prompt_tokens - 12);
  });

  it("[MU-8] streams; the usage chunk only for those who ask for it", async () => {
    const without = await user.client.chat.completions.create({ ...ask("[[text:a b c]]"), stream: true });
    let text = "";
    for await (const chunk of without) {
      expect(chunk.usage ?? undefined).toBeUndefined();
      expect(chunk.choices).toHaveLength(1);
      text += chunk.choices[0]?.delta.content ?? "";
    }
    expect(text).toBe("a b c");
    const asked = await user.client.chat.completions.create({
      ...ask("[[text:a b c]]"),
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = await collect(asked);
    expect(chunks.at(-1)?.usage?.completion_tokens).toBe(3);
    expect(provider.requests.at(-2)?.body.stream_options).toEqual({ include_usage: true });
  });

  it("strips usage a provider puts in every chunk, and still counts with it", async () => {
    const me = await server.user({ provider: { base_url: provider.baseUrl, api_key: "sk-continuous" } });
    const stream = await me.client.chat.completions.create({
      ...ask("[[usage:continuous]] [[text:a b c d]]"),
      stream: true,
    });
    const chunks = await collect(stream);
    expect(chunks.some((chunk) => chunk.usage != null)).toBe(false);
    const { used } = await server.account(me.user_id);
    expect(used[0]).toMatchObject({ output_tokens: 4, counted_by: "provider" });
  });

  it("works with the official client's own streaming helper and its tools", async () => {
    const runner = user.client.chat.completions.stream({
      ...ask("Go [[file:x.txt]]"),
      tools: [
        {
          type: "function",
          function: {
            name: "write",
            parameters: {
              type: "object",
              properties: { filePath: { type: "string" }, content: { type: "string" } },
            },
          },
        },
      ],
    });
    const final = await runner.finalChatCompletion();
    expect(final.choices[0]?.finish_reason).toBe("tool_calls");
    expect(final.choices[0]?.message.tool_calls?.[0]).toMatchObject({ function: { name: "write" } });
  });

  it("[MU-3] forces the cap on output tokens, and passes everything else on untouched", async () => {
    const extra = {
      temperature: 0.3,
      logit_bias: { "50256": -100 },
      metadata: { a: "b" },
      vendor_field: [1, null],
    };
    await post({ ...ask("x"), max_tokens: 99_999, ...extra });
    expect(provider.requests.at(-1)?.body).toEqual({ ...ask("x"), max_tokens: 1000, ...extra });
    await post({ ...ask("x"), max_completion_tokens: 5 });
    expect(provider.requests.at(-1)?.body).toEqual({ ...ask("x"), max_completion_tokens: 5 });
    await post(ask("x"));
    expect(provider.requests.at(-1)?.body.max_tokens).toBe(1000);
  });

  it("answers with a request id, CORS and no header of the provider", async () => {
    for (const stream of [true, false]) {
      const answer = await post(
        { ...ask("x"), stream },
        { origin: "http://evil.example", "x-request-id": "abc-1" },
      );
      expect(answer.status).toBe(200);
      expect(answer.headers.get("x-request-id")).toBe("abc-1");
      expect(answer.headers.get("x-upstream-secret")).toBeNull();
      expect(answer.headers.get("x-content-type-options")).toBe("nosniff");
      expect(answer.headers.get("content-type")).toContain(stream ? "text/event-stream" : "application/json");
      expect(await answer.text()).toContain(stream ? "data: [DONE]\n\n" : '"choices"');
    }
  });

  it("[GW-2] refuses bad callers in OpenAI's envelope", async () => {
    for (const authorization of ["", "Bearer nonsense", "Bearer cds_forged", "Basic abc"]) {
      const answer = await post(ask("x"), { authorization });
      expect(answer.status).toBe(401);
      const { error } = (await answer.json()) as { error: Record<string, unknown> };
      expect(error).toMatchObject({ type: "invalid_request_error", code: "invalid_api_key", param: null });
    }
    const viewer = await server.user({ role: "viewer" });
    await expect(viewer.client.chat.completions.create({ ...ask("x"), model: "demo" })).rejects.toMatchObject(
      {
        status: 403,
      },
    );
  });

  it("takes an access token as well", async () => {
    const { token } = await issue(server, user);
    const answer = await server.client(token).chat.completions.create(ask("[[text:hi]]"));
    expect(answer.choices[0]?.message.content).toBe("hi");
  });

  it("names the field that is wrong, and changes nothing", async () => {
    const before = provider.requests.length;
    const wrong: [unknown, string | null][] = [
      [{ messages: [{ role: "user", content: "x" }] }, "model"],
      [{ model: "gpt-test" }, "messages"],
      [{ model: "gpt-test", messages: [] }, "messages"],
      [{ ...ask("x"), n: 0 }, "n"],
      [{ ...ask("x"), max_tokens: "many" }, "max_tokens"],
      [{ ...ask("x"), stream: "yes" }, "stream"],
      [{ model: "gpt-test", messages: [{ content: "x" }] }, "messages[0].role"],
      ["{broken", null],
      [[1], null],
    ];
    for (const [body, param] of wrong) {
      const answer = await post(body);
      expect(answer.status).toBe(400);
      const { error } = (await answer.json()) as { error: { param: string | null; type: string } };
      expect(error.type).toBe("invalid_request_error");
      if (param !== null) expect(error.param).toBe(param);
    }
    expect(provider.requests).toHaveLength(before);
  });

  it("refuses a body that is too large with 413 in the envelope", async () => {
    await using small = await startLlmServer({ CDS_MAX_BODY_BYTES: "2048" });
    const me = await small.user();
    await expect(
      me.client.chat.completions.create({ ...ask("x".repeat(4096)), model: "demo" }),
    ).rejects.toMatchObject({ status: 413, type: "invalid_request_error" });
  });

  it("lists models and answers unknown routes in the envelope", async () => {
    const me = await server.user({
      provider: { base_url: provider.baseUrl, api_key: "sk-list", models: ["org/model-a", "model-b"] },
    });
    const models = await collect(me.client.models.list());
    expect(models.map(({ id, owned_by }) => [id, owned_by])).toEqual([
      ["demo", "demo"],
      ["org/model-a", "user"],
      ["model-b", "user"],
    ]);
    expect((await me.client.models.retrieve("model-b")).id).toBe("model-b");
    await expect(me.client.models.retrieve("model-c")).rejects.toMatchObject({
      status: 404,
      code: "model_not_found",
    });
    await expect(me.client.images.generate({ model: "x", prompt: "y" })).rejects.toMatchObject({
      status: 404,
      code: "unknown_url",
    });
    await expect(me.client.chat.completions.create({ ...ask("x"), model: "model-c" })).rejects.toMatchObject({
      status: 404,
      code: "model_not_found",
      param: "model",
    });
  });

  it("[MU-4] says what to do when there is no key", async () => {
    const me = await server.user();
    const error = await me.client.chat.completions.create(ask("x")).catch((caught: unknown) => caught);
    if (!(error instanceof OpenAI.APIError)) throw new Error("expected an API error");
    expect(error.status).toBe(400);
    expect(error.code).toBe("no_provider_key");
    expect(error.message).toContain("provider.set or OPENAI_API_KEY");
  });

  it("[MU-4] the user's key before the server's, never across, never to another host", async () => {
    await using mine = await startScriptedProvider();
    await using servers = await startScriptedProvider();
    await using both = await startLlmServer({
      OPENAI_API_KEY: "sk-server-key-000000000",
      OPENAI_BASE_URL: servers.baseUrl,
    });
    const owner = await both.user({ provider: { base_url: mine.baseUrl, api_key: "sk-mine-key-1111111" } });
    const other = await both.user();
    await owner.client.chat.completions.create(ask("owner"));
    await other.client.chat.completions.create(ask("other"));
    expect(mine.requests.map(({ key, prompt }) => [key, prompt])).toEqual([["sk-mine-key-1111111", "owner"]]);
    expect(servers.requests.map(({ key, prompt }) => [key, prompt])).toEqual([
      ["sk-server-key-000000000", "other"],
    ]);
    // A new base URL drops the key: nothing may go there with the old one or the server's.
    await using elsewhere = await startScriptedProvider();
    await setProvider(both.db, {
      user_id: owner.user_id,
      base_url: elsewhere.baseUrl,
      api_key_encrypted: undefined,
      models: [],
    });
    await owner.client.chat.completions.create(ask("again"));
    expect(elsewhere.requests).toHaveLength(0);
    expect(mine.requests).toHaveLength(1);
    expect(servers.requests.at(-1)).toMatchObject({ key: "sk-server-key-000000000", prompt: "again" });
  });

  it("notices a provider that is this very server", async () => {
    const me = await server.user();
    const sealed = server.secrets.seal(me.api_key, `provider:${me.user_id}:${new URL(server.url).host}`);
    await setProvider(server.db, {
      user_id: me.user_id,
      base_url: server.url,
      api_key_encrypted: sealed,
      models: [],
    });
    await expect(me.client.chat.completions.create(ask("x"))).rejects.toMatchObject({
      status: 400,
      code: "provider_loop",
    });
    expect((await server.account(me.user_id)).balance).toBe(10_000_000);
  });
});

async function issue(server: TestLlmServer, user: LlmUser): Promise<{ token: string }> {
  const row = await findUser(server.db, user.user_id);
  if (row === undefined) throw new Error("the user is gone");
  return server.accessTokens.issue(row);
}
