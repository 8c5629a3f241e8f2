import { once } from "node:events";
import { createConnection } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { newApiKey } from "#platform";
import { startLlmServer, type TestLlmServer } from "#tests/support/llm-server.ts";
import { type ScriptedProvider, startScriptedProvider } from "#tests/support/provider.ts";

interface Message {
  id?: string;
  type: "event" | "done" | "error";
  event?: string;
  data?: { choices?: { delta?: { content?: string }; text?: string }[]; [field: string]: unknown };
  ok?: boolean;
  error?: { message: string; code: string | null; param: string | null };
}

/** A connection that keeps everything it was told. */
class Connection {
  readonly ws: WebSocket;
  readonly messages: Message[] = [];

  constructor(ws: WebSocket) {
    this.ws = ws;
    ws.on("message", (data) => this.messages.push(JSON.parse(String(data))));
  }

  send(message: unknown): void {
    this.ws.send(typeof message === "string" ? message : JSON.stringify(message));
  }

  request(id: string, body: unknown, endpoint?: string): void {
    this.send({ type: "request", id, ...(endpoint === undefined ? {} : { endpoint }), body });
  }

  /** Resolves with what was said of a request when it is over. */
  async ended(id: string): Promise<Message[]> {
    const mine = () => this.messages.filter((message) => message.id === id);
    await expect.poll(() => mine().some(({ type }) => type !== "event")).toBe(true);
    return mine();
  }
}

const textOf = (messages: Message[]) =>
  messages.map(({ data }) => data?.choices?.[0]?.delta?.content ?? "").join("");
const say = (content: string) => ({ model: "scripted", messages: [{ role: "user", content }] });

describe("[LLM-1] WebSocket /v1/stream", () => {
  let server: TestLlmServer;
  let provider: ScriptedProvider;
  const open: WebSocket[] = [];
  const address = () => `${server.url.replace("http", "ws")}/stream`;
  const user = (options: { balance?: number } = {}) =>
    server.user({ ...options, provider: { base_url: provider.baseUrl, api_key: "sk-socket-0123456789" } });
  const connect = async (api_key: string, how: "header" | "subprotocol" = "header") => {
    const ws =
      how === "header"
        ? new WebSocket(address(), { headers: { authorization: `Bearer ${api_key}` } })
        : new WebSocket(address(), ["cds.v1", `bearer.${api_key}`]);
    open.push(ws);
    const connection = new Connection(ws);
    await once(ws, "open");
    return connection;
  };

  beforeAll(async () => {
    provider = await startScriptedProvider();
    server = await startLlmServer();
  });
  afterAll(async () => {
    for (const ws of open) ws.terminate();
    await server?.[Symbol.asyncDispose]();
    await provider?.close();
  });

  it("streams several requests at once, each by its id, and charges each", async () => {
    const me = await user();
    const connection = await connect(me.api_key);
    connection.request("a", say("[[text:eins zwei drei]] [[delay:5]]"));
    connection.request("b", say("[[text:vier fünf]]"), "chat/completions");
    connection.request("c", { model: "scripted", prompt: "x" }, "completions");
    connection.request("d", { model: "scripted", input: ["x", "y"] }, "embeddings");
    const [a, b, c, d] = await Promise.all(["a", "b", "c", "d"].map((id) => connection.ended(id)));
    expect(textOf(a ?? [])).toBe("eins zwei drei");
    expect(textOf(b ?? [])).toBe("vier fünf");
    expect((c ?? []).map(({ data }) => data?.choices?.[0]?.text ?? "").join("")).toContain("completion");
    expect(d?.[0]?.data).toMatchObject({ object: "list", data: [{ index: 0 }, { index: 1 }] });
    for (const messages of [a, b, c, d]) expect(messages?.at(-1)).toMatchObject({ type: "done", ok: true });
    expect((await server.account(me.user_id)).used).toHaveLength(4);
  });

  it("names the events of a response", async () => {
    const me = await user();
    const connection = await connect(me.api_key, "subprotocol");
    connection.request("r", { model: "scripted", input: "[[text:hallo]]" }, "responses");
    const messages = await connection.ended("r");
    expect(messages[0]).toMatchObject({ event: "response.created", data: { type: "response.created" } });
    expect(messages.at(-2)).toMatchObject({ event: "response.completed" });
  });

  it("cancels one request and leaves the others; what was streamed is charged", async () => {
    const me = await user();
    const connection = await connect(me.api_key);
    connection.request("long", say(`[[delay:20]] [[text:${"wort ".repeat(200)}]]`));
    connection.request("other", say("[[text:noch da]] [[delay:30]]"));
    await expect.poll(() => textOf(connection.messages.filter(({ id }) => id === "long"))).toContain("wort");
    connection.send({ type: "cancel", id: "long" });
    expect((await connection.ended("long")).at(-1)).toMatchObject({
      type: "done",
      ok: false,
      error: { code: "client_closed_request" },
    });
    expect((await connection.ended("other")).at(-1)).toMatchObject({ ok: true });
    const { used } = await server.account(me.user_id);
    expect(used).toHaveLength(2);
    await expect
      .poll(() => provider.requests.some(({ aborted, prompt }) => aborted && prompt.includes("wort")))
      .toBe(true);
  });

  it("a request cancelled before it began costs nothing", async () => {
    const me = await user();
    const connection = await connect(me.api_key);
    connection.request("never", { ...say("hallo"), model: "demo" });
    connection.send({ type: "cancel", id: "never" });
    expect((await connection.ended("never")).at(-1)).toMatchObject({
      type: "error",
      error: { code: "client_closed_request" },
    });
    expect(await server.account(me.user_id)).toEqual({ balance: 10_000_000, held: 0, used: [] });
  });

  it("ends and charges everything when the connection goes", async () => {
    const me = await user();
    const connection = await connect(me.api_key);
    connection.request("long", say(`[[delay:20]] [[text:${"weg ".repeat(200)}]]`));
    await expect.poll(() => textOf(connection.messages)).toContain("weg");
    connection.ws.terminate();
    expect((await server.account(me.user_id)).used).toHaveLength(1);
    await expect
      .poll(() => provider.requests.some(({ aborted, prompt }) => aborted && prompt.includes("weg")))
      .toBe(true);
  });

  it("tells what is wrong with a request and goes on", async () => {
    const me = await user();
    const connection = await connect(me.api_key);
    const wrong: [unknown, Partial<Message["error"]>][] = [
      ["no json", { message: expect.stringContaining("JSON") as unknown as string }],
      [{ type: "dance", id: "x1" }, {}],
      [{ type: "request", id: "x2", endpoint: "images", body: {} }, { param: "endpoint" }],
      [{ type: "request", id: "x3", body: { model: "scripted" } }, { param: "messages" }],
      [{ type: "request", id: "", body: {} }, { param: "id" }],
      [{ type: "request", id: "x4", body: [] }, { param: "body" }],
    ];
    for (const [message, error] of wrong) {
      const before = connection.messages.length;
      connection.send(message);
      await expect.poll(() => connection.messages.length).toBe(before + 1);
      expect(connection.messages.at(-1)).toMatchObject({ type: "error", error });
    }
    connection.request("good", say("[[text:geht]]"));
    expect(textOf(await connection.ended("good"))).toBe("geht");
  });

  it("refuses an id in work, and more than 16 at once", async () => {
    const me = await user();
    const connection = await connect(me.api_key);
    for (let index = 0; index < 16; index += 1) connection.request(`r${index}`, say("[[first-byte:1500]]"));
    connection.request("r0", say("x"));
    connection.request("r16", say("x"));
    await expect.poll(() => connection.messages.filter(({ type }) => type === "error").length).toBe(2);
    const errors = connection.messages.filter(({ type }) => type === "error");
    expect(errors.map(({ error }) => error?.code)).toContain("rate_limit_exceeded");
    for (let index = 1; index < 16; index += 1) {
      expect((await connection.ended(`r${index}`)).at(-1)?.ok).toBe(true);
    }
  });

  it("refuses whoever is nobody: before the upgrade with a header, by close code from a page", async () => {
    const ws = new WebSocket(address(), { headers: { authorization: "Bearer sk-nobody" } });
    const [error] = await once(ws, "error");
    expect(String(error)).toContain("401");
    const page = new WebSocket(address(), ["cds.v1", "bearer.sk-nobody"]);
    const [code] = await once(page, "close");
    expect(code).toBe(4401);
    const nameless = new WebSocket(address(), ["cds.v1"]);
    expect((await once(nameless, "close"))[0]).toBe(4401);
    const viewer = await server.user({ role: "viewer" });
    const reader = new WebSocket(address(), ["cds.v1", `bearer.${viewer.api_key}`]);
    expect((await once(reader, "close"))[0]).toBe(4403);
  });

  it("hears nobody before it is known who it is", async () => {
    const socket = createConnection(Number(new URL(server.url).port), "127.0.0.1");
    // The upgrade and a masked text frame that is no JSON, in one packet.
    const upgrade = [
      "GET /v1/stream HTTP/1.1",
      "Host: 127.0.0.1",
      "Connection: Upgrade",
      "Upgrade: websocket",
      "Sec-WebSocket-Version: 13",
      `Sec-WebSocket-Key: ${Buffer.alloc(16).toString("base64")}`,
      `Sec-WebSocket-Protocol: cds.v1, bearer.${newApiKey()}`,
    ].join("\r\n");
    const frame = Buffer.from([0x81, 0x81, 0, 0, 0, 0, "x".charCodeAt(0)]);
    socket.write(Buffer.concat([Buffer.from(`${upgrade}\r\n\r\n`), frame]));
    let told = "";
    for await (const data of socket) told += String(data);
    expect(told).toContain("101 Switching Protocols");
    expect(told).toContain("is not valid");
    expect(told).not.toContain("JSON");
  });

  it("refuses pages of other origins, tokens in the address, and plain HTTP", async () => {
    const me = await user();
    const headers = { authorization: `Bearer ${me.api_key}` };
    const foreign = new WebSocket(address(), { headers: { ...headers, origin: "https://evil.example" } });
    expect(String((await once(foreign, "error"))[0])).toContain("403");
    const leaking = new WebSocket(`${address()}?token=${me.api_key}`, { headers });
    expect(String((await once(leaking, "error"))[0])).toContain("400");
    const plain = await fetch(`${server.url}/stream`, { headers });
    expect(plain.status).toBe(426);
  });

  it("reads slowly from whoever sends nothing but what is refused", async () => {
    const me = await user();
    const connection = await connect(me.api_key);
    const nonsense = "x".repeat(100_000);
    for (let index = 0; index < 100; index += 1) connection.send(nonsense);
    await expect.poll(() => connection.messages.length).toBeGreaterThan(0);
    await sleep(1000);
    expect(connection.messages.length).toBeLessThan(100);
    connection.ws.terminate();
  });

  it("holds no more than a little for a peer that does not read", async () => {
    const me = await user({ balance: 1e12 });
    const connection = await connect(me.api_key);
    connection.ws.pause();
    connection.request("flood", { ...say("[[bytes:8000000]]"), max_tokens: 8192 });
    const record = () => provider.requests.find(({ prompt }) => prompt.includes("bytes:8000000"));
    // Until nothing moves any more: the provider is not read on either, what it could not hand over stays there.
    let held = 0;
    const stands = () => {
      const before = held;
      held = record()?.streamed.length ?? 0;
      return held > 0 && held === before;
    };
    await expect.poll(stands, { interval: 1000 }).toBe(true);
    expect(record()?.completed).toBe(false);
    expect(held).toBeLessThan(8_000_000);
    connection.ws.terminate();
    await server.account(me.user_id);
  });
});
