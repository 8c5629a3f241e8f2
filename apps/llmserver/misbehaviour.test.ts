import { once } from "node:events";
import { createServer, type Server, type ServerResponse } from "node:http";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { collect, type LlmUser, startLlmServer, type TestLlmServer } from "#tests/support/llm-server.ts";
import { type ScriptedProvider, startScriptedProvider } from "#tests/support/provider.ts";

const START = 10_000_000;
vi.setConfig({ expect: { poll: { timeout: 30_000 } } });
const ask = (content: string) => ({ model: "gpt-test", messages: [{ role: "user" as const, content }] });

/** Every way a provider can go wrong, each time with a new user so that no circuit breaker interferes. */
describe("providers that misbehave", () => {
  let provider: ScriptedProvider;
  let server: TestLlmServer;
  let count = 0;

  beforeAll(async () => {
    provider = await startScriptedProvider();
    server = await startLlmServer({
      CDS_PROVIDER_CONNECT_TIMEOUT_MS: "1000",
      CDS_PROVIDER_FIRST_BYTE_TIMEOUT_MS: "1000",
      CDS_PROVIDER_IDLE_TIMEOUT_MS: "1500",
    });
  });
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
    await provider?.close();
  });

  const newUser = async (base_url = provider.baseUrl): Promise<LlmUser & { key: string }> => {
    const key = `sk-secret-${String(++count).padStart(4, "0")}-QmFzZTY0IG1l`;
    return { ...(await server.user({ provider: { base_url, api_key: key } })), key };
  };
  const fail = async (
    user: LlmUser,
    content: string,
    stream: boolean,
  ): Promise<InstanceType<typeof OpenAI.APIError>> => {
    const body = { ...ask(content), stream };
    const error = await user.client.chat.completions.create(body).then(
      async (answer) =>
        collect(answer as AsyncIterable<unknown>).then(
          () => undefined,
          (caught: unknown) => caught,
        ),
      (caught: unknown) => caught,
    );
    if (!(error instanceof OpenAI.APIError)) throw new Error(`expected an API error, got ${String(error)}`);
    return error;
  };
  const untouched = async (user: LlmUser) => {
    expect(await server.account(user.user_id)).toEqual({ balance: START, held: 0, used: [] });
  };

  const BEFORE_THE_FIRST_BYTE: [prompt: string, status: number, code: string, requests: number][] = [
    ["[[500]]", 500, "server_error", 3],
    ["[[503]]", 503, "overloaded", 3],
    ["[[429:0]]", 429, "rate_limit_exceeded", 3],
    ["[[429:120]]", 429, "rate_limit_exceeded", 1],
    ["[[400]]", 400, "unsupported_value", 1],
    ["[[401]]", 401, "invalid_api_key", 1],
    ["[[redirect:http://169.254.169.254/latest]]", 502, "provider_redirect", 1],
    ["[[reset]]", 502, "provider_unreachable", 3],
  ];
  for (const [prompt, status, code, requests] of BEFORE_THE_FIRST_BYTE) {
    it.each([true, false])(`${prompt} is a ${status} and costs nothing (stream: %s)`, async (stream) => {
      const user = await newUser();
      const error = await fail(user, prompt, stream);
      expect(error.status).toBe(status);
      expect(error.code).toBe(code);
      expect(error.message).not.toContain(user.key);
      expect(provider.requestsOf(user.key)).toHaveLength(requests);
      await untouched(user);
    });
  }

  it("passes a long Retry-After on, and tells clients not to repeat what was repeated", async () => {
    const user = await newUser();
    const limited = await fail(user, "[[429:120]]", true);
    expect(limited.headers?.get("retry-after")).toBe("120");
    const broken = await fail(user, "[[500]]", true);
    expect(broken.headers?.get("x-should-retry")).toBe("false");
  });

  it("[MU-10] tries again before the first byte and then answers as if nothing had been", async () => {
    const user = await newUser();
    for (const fault of ["500x2", "503x1", "429x1:0", "resetx1"]) {
      const answer = await user.client.chat.completions.create(ask(`[[${fault}]] [[text:fine]]`));
      expect(answer.choices[0]?.message.content).toBe("fine");
    }
    expect(provider.requestsOf(user.key)).toHaveLength(9);
    expect((await server.account(user.user_id)).used).toHaveLength(4);
  });

  it("[MU-4] the key is in no answer and no log, whole, in part or encoded", async () => {
    const user = await newUser();
    const answers: string[] = [];
    for (const prompt of ["[[401]]", "[[500]]", "[[error-event]] [[text:a b c d]]", "[[400]]"]) {
      for (const stream of [true, false]) {
        const answer = await fetch(`${server.url}/chat/completions`, {
          method: "POST",
          headers: { "content-type": "application/json", authorization: `Bearer ${user.api_key}` },
          body: JSON.stringify({ ...ask(prompt), stream }),
        });
        answers.push(JSON.stringify([...answer.headers]), await answer.text());
      }
    }
    expect(answers.join("")).toContain("[redacted]");
    const everything = `${answers.join("\n")}\n${server.logs.join("")}`;
    for (const secret of [
      user.key,
      user.key.slice(3),
      Buffer.from(user.key).toString("base64"),
      user.api_key,
    ]) {
      expect(everything).not.toContain(secret);
    }
  });

  it("[MU-10] a provider that never answers is a 504, asked once and let go", async () => {
    const user = await newUser();
    const error = await fail(user, "[[hang]]", true);
    expect(error.status).toBe(504);
    expect(error.code).toBe("provider_timeout");
    await expect.poll(() => provider.requestsOf(user.key)).toMatchObject([{ aborted: true }]);
    await untouched(user);
  });

  it("silence in the middle ends the stream with an error and is charged for what came", async () => {
    const user = await newUser();
    const error = await fail(user, "[[hang-stream]] [[text:one two three four]]", true);
    expect(error.message).toContain("did not answer in time");
    const { used, held } = await server.account(user.user_id);
    expect(held).toBe(0);
    expect(used).toHaveLength(1);
    // "one two " is three tokens with its last blank.
    expect(used[0]).toMatchObject({ output_tokens: 3, counted_by: "tokenizer" });
  });

  for (const fault of ["half-chunk", "no-done", "error-event"]) {
    it(`a stream with ${fault} is no success and is charged for what came`, async () => {
      const user = await newUser();
      const body = JSON.stringify({ ...ask(`[[${fault}]] [[text:one two three four]]`), stream: true });
      const answer = await fetch(`${server.url}/chat/completions`, {
        method: "POST",
        headers: { "content-type": "application/json", authorization: `Bearer ${user.api_key}` },
        body,
      });
      const text = await answer.text();
      expect(text).toContain('"content":"one "');
      expect(text).not.toContain("[DONE]");
      const last = JSON.parse(text.trim().split("\n\n").at(-1)?.slice(6) ?? "");
      expect(last.error).toMatchObject({ type: "server_error", param: null });
      const { used, held } = await server.account(user.user_id);
      expect(held).toBe(0);
      expect(used[0]?.counted_by).toBe("tokenizer");
      expect(used[0]?.output_tokens).toBeGreaterThan(0);
    });
  }

  it.each(["half-chunk", "hang-stream", "html"])(
    "a whole answer with %s is a 5xx and costs nothing",
    async (fault) => {
      const user = await newUser();
      const error = await fail(user, `[[${fault}]] [[text:a b]]`, false);
      expect([502, 504]).toContain(error.status);
      await untouched(user);
    },
  );

  it("a web page instead of a stream is an error", async () => {
    const user = await newUser();
    expect((await fail(user, "[[html]]", true)).status).toBe(502);
    await untouched(user);
  });

  it.each(["none", "wrong"])("usage %s is counted by our tokenizer and flagged", async (usage) => {
    const user = await newUser();
    for (const stream of [true, false]) {
      const answer = await user.client.chat.completions.create({
        ...ask(`[[usage:${usage}]] [[text:The quick brown fox]]`),
        stream,
      });
      if (stream) await collect(answer as AsyncIterable<unknown>);
    }
    const { used } = await server.account(user.user_id);
    expect(used).toHaveLength(2);
    for (const row of used) expect(row).toMatchObject({ output_tokens: 4, counted_by: "tokenizer" });
    expect(used[0]?.input_tokens).toBeGreaterThan(10);
    expect(used[0]?.input_tokens).toBe(used[1]?.input_tokens);
  });

  it("a provider that does not keep to max_tokens is cut off", async () => {
    const user = await newUser();
    const body = { ...ask("[[bytes:5000000]]"), stream: true as const, max_tokens: 100 };
    const stream = await user.client.chat.completions.create(body);
    let characters = 0;
    const error = await (async () => {
      for await (const chunk of stream) characters += chunk.choices[0]?.delta.content?.length ?? 0;
    })().catch((caught: unknown) => caught);
    expect(String(error)).toContain("far more than was asked for");
    expect(characters).toBeLessThan(400_000);
    const { balance, held } = await server.account(user.user_id);
    expect(held).toBe(0);
    expect(balance).toBeGreaterThanOrEqual(0);
  });

  it("a slow but steady provider is let finish", async () => {
    const user = await newUser();
    // Longer as a whole than any of the time-outs.
    const stream = await user.client.chat.completions.create({
      ...ask("[[delay:250]] [[text:a b c d e f g h]]"),
      stream: true,
    });
    expect((await collect(stream)).length).toBeGreaterThan(8);
  });

  it("refuses addresses nobody's provider has, without a request", async () => {
    for (const base_url of [
      "http://169.254.169.254/v1",
      "http://[fe80::1]/v1",
      "http://[::ffff:169.254.169.254]/v1",
      "http://2852039166/v1",
    ]) {
      const user = await newUser(base_url);
      const error = await fail(user, "x", true);
      expect([error.status, error.code]).toEqual([400, "provider_address_refused"]);
      await untouched(user);
    }
    for (const base_url of ["http://user:pass@127.0.0.1/v1", "ftp://127.0.0.1/v1"]) {
      const error = await fail(await newUser(base_url), "x", true);
      expect([error.status, error.code]).toEqual([400, "provider_invalid_url"]);
    }
  });

  it("refuses users' private addresses when others can reach the server, but not the operator's own", async () => {
    await using strict = await startLlmServer({
      CDS_HOST: "0.0.0.0",
      OPENAI_BASE_URL: provider.baseUrl,
      OPENAI_API_KEY: "sk-operators-own-0001",
    });
    const keyless = await strict.user();
    await keyless.client.chat.completions.create({ ...ask("hello"), stream: false });
    expect(provider.requestsOf("sk-operators-own-0001")).toHaveLength(1);
    for (const base_url of [provider.baseUrl, provider.baseUrl.replace("127.0.0.1", "localhost")]) {
      const user = await strict.user({ provider: { base_url, api_key: "sk-private-0001" } });
      const error = await fail(user, "x", true);
      expect([error.status, error.code]).toEqual([400, "provider_address_refused"]);
    }
    expect(provider.requestsOf("sk-private-0001")).toHaveLength(0);
  });

  it("a port where nobody listens, and one where nobody speaks HTTP", async () => {
    const tcp = createTcpServer((socket) => socket.resume().end("hello\r\n\r\n")).listen(0, "127.0.0.1");
    await once(tcp, "listening");
    const { port } = tcp.address() as AddressInfo;
    const garbled = await newUser(`http://127.0.0.1:${port}/v1`);
    expect((await fail(garbled, "x", true)).code).toBe("provider_unreachable");
    await new Promise((resolve) => tcp.close(resolve));
    const silent = await newUser(`http://127.0.0.1:${port}/v1`);
    const error = await fail(silent, "x", true);
    expect(error.code).toBe("provider_unreachable");
    expect(error.message).toContain("ECONNREFUSED");
    await untouched(silent);
  });

  it("[MU-10] pauses a provider that keeps failing, for that user only", async () => {
    const user = await newUser();
    for (let index = 0; index < 5; index += 1) await fail(user, "[[500]]", true);
    const before = provider.requestsOf(user.key).length;
    const error = await fail(user, "[[text:fine]]", true);
    expect([error.status, error.code]).toEqual([503, "provider_paused"]);
    expect(Number(error.headers?.get("retry-after"))).toBeGreaterThan(0);
    expect(provider.requestsOf(user.key)).toHaveLength(before);
    const other = await newUser();
    await other.client.chat.completions.create(ask("[[text:fine]]"));
  }, 60_000);

  it("takes odd but legal streams: CRLF, comments, data over several lines, no [DONE]", async () => {
    const odd = (response: ServerResponse) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(": keep-alive\r\n\r\n");
      response.write(
        'event: message\r\ndata: {"choices":[{"index":0,\r\ndata: "delta":{"content":"h\\u00e9"}}]}\r\n\r\n',
      );
      response.end('data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\r\n\r\n');
    };
    await using other = await plainServer(odd);
    const user = await newUser(other.url);
    const chunks = await collect(await user.client.chat.completions.create({ ...ask("x"), stream: true }));
    expect(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("")).toBe("hé");
    expect((await server.account(user.user_id)).used).toHaveLength(1);
  });

  it("an error as the first event is an HTTP error, not a stream", async () => {
    await using other = await plainServer((response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.end('data: {"error":{"message":"model is loading","code":"loading"}}\n\n');
    });
    const user = await newUser(other.url);
    const error = await fail(user, "x", true);
    expect([error.status, error.code]).toEqual([502, "loading"]);
    await untouched(user);
  });

  it("an event without end is an error in bounded memory", async () => {
    await using other = await plainServer((response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(`data: ${"x".repeat(9 * 1024 * 1024)}`);
    });
    const user = await newUser(other.url);
    expect((await fail(user, "x", true)).message).toContain("too large");
    await untouched(user);
  });

  it("a whole answer that is no chat completion, or an error in disguise", async () => {
    for (const [body, message] of [
      ['{"hello":"world"}', "no chat completion"],
      ['{"error":{"message":"quota"}}', "quota"],
      ["[]", "no chat completion"],
    ] as const) {
      await using other = await plainServer((response) => {
        response.writeHead(200, { "content-type": "application/json" });
        response.end(body);
      });
      const user = await newUser(other.url);
      const error = await fail(user, "x", false);
      expect(error.status).toBe(502);
      expect(error.message).toContain(message);
      await untouched(user);
    }
  });
});

async function plainServer(answer: (response: ServerResponse) => void) {
  const server: Server = createServer((request, response) => {
    request.resume();
    answer(response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
