import { mkdtemp, rm, stat } from "node:fs/promises";
import { createServer, request as httpRequest, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent } from "undici";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createLogger } from "#platform/log.ts";
import { type ScriptedProvider, startScriptedProvider } from "#tests/support/provider.ts";
import { PauseGate } from "../run/pause-gate.ts";
import { type BridgeOptions, ModelBridge } from "./bridge.ts";

const log = createLogger({ level: "silent", pretty: false });
let provider: ScriptedProvider;
let dir: string;
let dispatcher: Agent;
let sockets = 0;

beforeAll(async () => {
  provider = await startScriptedProvider();
  dir = await mkdtemp(join(tmpdir(), "cds-bridge-"));
  dispatcher = new Agent();
});
afterAll(async () => {
  await dispatcher.destroy();
  await provider.close();
  await rm(dir, { recursive: true, force: true });
});

async function open(options: Partial<BridgeOptions> = {}) {
  const socketPath = options.socketPath ?? join(dir, `s${sockets++}`);
  const bridge = await ModelBridge.open({
    owner: null,
    llmUrl: provider.baseUrl,
    dispatcher,
    maxBodyBytes: 100_000,
    maxModelCalls: 3,
    maxOutputTokens: 100,
    flushMs: 100,
    upstreamTimeoutMs: 5000,
    log,
    ...options,
    socketPath,
  });
  let activity = 0;
  const gate = new PauseGate(() => undefined);
  const stop = new AbortController();
  const begin = (token = "task-token") =>
    bridge.begin({
      token,
      model: "real-model",
      onActivity: () => void activity++,
      gate: () => gate.pass(stop.signal),
    });
  return { bridge, socketPath, begin, activity: () => activity, gate, stop };
}

interface Answer {
  status: number;
  body: string;
  headers: IncomingMessage["headers"];
}

function ask(socketPath: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const method = body === undefined ? "GET" : "POST";
    const headers = { authorization: "Bearer from-inside", "content-type": "application/json" };
    const req = httpRequest(
      { socketPath, path, method, headers, ...(signal ? { signal } : {}) },
      (response) => {
        text(response).then(
          (content) =>
            resolve({ status: response.statusCode ?? 0, body: content, headers: response.headers }),
          reject,
        );
      },
    );
    req.on("error", reject);
    req.end(body === undefined ? undefined : typeof body === "string" ? body : JSON.stringify(body));
  });
}

const chat = (prompt: string, more: object = {}) => ({
  model: "whatever",
  stream: true,
  messages: [{ role: "user", content: prompt }],
  ...more,
});
const CHAT = "/v1/chat/completions";
const events = (body: string) => body.split("\n\n").filter(Boolean);
const said = (body: string) =>
  events(body)
    .filter((event) => event !== "data: [DONE]")
    .map((event) => JSON.parse(event.slice(6)).choices?.[0]?.delta?.content ?? "")
    .join("");

describe("model bridge", () => {
  it("[MU-4] puts in the task's token, model and limits, whatever the sandbox sends", async () => {
    const { bridge, socketPath, begin } = await open();
    await using _ = bridge;
    const run = begin("token-of-task-1");
    const answer = await ask(socketPath, CHAT, chat("[[text:hello there]]", { max_tokens: 5000, n: 50 }));
    expect(answer.status).toBe(200);
    expect(said(answer.body)).toBe("hello there");
    const seen = provider.requestsOf("token-of-task-1").at(-1);
    expect(seen?.body).toMatchObject({ model: "real-model", max_tokens: 100 });
    expect(seen?.body.n).toBeUndefined();
    expect(seen?.raw).not.toContain("from-inside");
    expect(run).toMatchObject({ calls: 1, lastFinish: "stop", error: undefined });
    expect((await stat(socketPath)).mode & 0o777).toBe(0o600);
  });

  it("lets nothing else through, and nothing without a task", async () => {
    const { bridge, socketPath, begin } = await open();
    await using _ = bridge;
    const before = provider.requests.length;
    expect((await ask(socketPath, CHAT, chat("x"))).status).toBe(403);
    begin();
    expect((await ask(socketPath, "/admin/users")).status).toBe(404);
    expect((await ask(socketPath, "/v1/embeddings", {})).status).toBe(404);
    expect((await ask(socketPath, CHAT, "{not json")).status).toBe(400);
    expect((await ask(socketPath, CHAT, chat("x".repeat(200_000)))).status).toBe(413);
    expect(provider.requests.length).toBe(before);
    expect(JSON.parse((await ask(socketPath, "/v1/models")).body).data).toMatchObject([{ id: "real-model" }]);
    bridge.end();
    expect((await ask(socketPath, CHAT, chat("x"))).status).toBe(403);
  });

  it("caps the calls of a task", async () => {
    const { bridge, socketPath, begin } = await open();
    await using _ = bridge;
    const run = begin();
    for (let call = 0; call < 3; call++) expect((await ask(socketPath, CHAT, chat("x"))).status).toBe(200);
    const refused = await ask(socketPath, CHAT, chat("x"));
    expect(refused.status).toBe(400);
    expect(run.error).toMatchObject({
      code: "RunFailed",
      message: expect.stringContaining("all 3 model calls"),
    });
  });

  it.each([
    ["429", "RateLimited"],
    ["500", "ProviderError"],
    ["503", "Unavailable"],
    ["reset", "Unavailable"],
  ])("turns upstream's %s into a 400 and remembers what it was", async (fault, code) => {
    const { bridge, socketPath, begin } = await open();
    await using _ = bridge;
    const run = begin(`token-of-${fault}`);
    const answer = await ask(socketPath, CHAT, chat(`[[${fault}]]`));
    expect(answer.status).toBe(400);
    // At once: not asked again, not waited for.
    expect(provider.requestsOf(`token-of-${fault}`)).toHaveLength(1);
    expect(answer.headers["retry-after"]).toBeUndefined();
    expect(run.error?.code).toBe(code);
    // Words and types that would make opencode try again for minutes.
    expect(answer.body).not.toMatch(/rate|limit|overload|server_error|unavailable/i);
  });

  it.each(["half-chunk", "no-done", "error-event"])(
    "ends a stream that broke by %s with an error",
    async (fault) => {
      const { bridge, socketPath, begin } = await open();
      await using _ = bridge;
      const run = begin();
      const { body } = await ask(socketPath, CHAT, chat(`[[${fault}]][[text:one two three four]]`));
      expect(said(body)).toBe("one two ");
      expect(JSON.parse(events(body).at(-1)?.slice(6) ?? "").error.message).toEqual(expect.any(String));
      expect(run.error?.code).toBe("ProviderError");
      expect(run.lastFinish).toBeUndefined();
    },
  );

  it("[MU-8] sends the first event at once and bundles later ones, losing nothing", async () => {
    // Never by the clock: the end is what sends the later ones.
    const { bridge, socketPath, begin, activity } = await open({ flushMs: 600_000 });
    await using _ = bridge;
    begin("token-of-bundles");
    const words = Array.from({ length: 40 }, (_, index) => `w${index} `).join("");
    const { body } = await ask(socketPath, CHAT, chat(`[[delay:10]][[text:${words}]]`));
    expect(said(body)).toBe(words);
    expect(events(body).length).toBeLessThan(8);
    expect(events(body).at(-1)).toBe("data: [DONE]");
    expect(activity()).toBeGreaterThan(30);
  });

  it.each([
    // The provider's first one says only who speaks.
    ["the first event at once", 600_000, ""],
    ["the next ones after a moment", 50, "one two "],
  ])("[MU-8] sends %s, though the stream goes on", async (_title, flushMs, words) => {
    const { bridge, socketPath, begin } = await open({ flushMs, upstreamTimeoutMs: 600_000 });
    await using _ = bridge;
    begin(`token-of-flush-${flushMs}`);
    let got = "";
    const prompt = "[[hang-stream]][[text:one two three four]]";
    const reader = httpRequest({ socketPath, path: CHAT, method: "POST" }, (response) => {
      response.on("data", (data) => {
        got += data;
      });
      response.on("error", () => undefined);
    });
    reader.on("error", () => undefined);
    reader.end(JSON.stringify(chat(prompt)));
    await waitUntil(() => events(got).length > 0 && said(got).length >= words.length);
    expect(said(got)).toBe(words);
    expect(provider.requestsOf(`token-of-flush-${flushMs}`)).toMatchObject([{ completed: false }]);
    reader.destroy();
  });

  it("aborts upstream when the sandbox goes away, and when the task ends", async () => {
    const { bridge, socketPath, begin } = await open();
    await using _ = bridge;
    const run = begin("token-of-quitter");
    const quit = new AbortController();
    const first = ask(socketPath, CHAT, chat("[[hang-stream]]"), quit.signal);
    const second = ask(socketPath, CHAT, chat("[[hang]]"));
    first.catch(() => undefined);
    second.catch(() => undefined);
    await waitUntil(() => provider.requestsOf("token-of-quitter").length === 2);
    quit.abort();
    await waitUntil(() => provider.requestsOf("token-of-quitter").some((seen) => seen.aborted));
    bridge.end();
    await waitUntil(() => provider.requestsOf("token-of-quitter").every((seen) => seen.aborted));
    await expect(second).rejects.toThrow();
    expect(run.error).toBeUndefined();
  });

  it("gives up on a model server that never answers", async () => {
    const { bridge, socketPath, begin } = await open({ upstreamTimeoutMs: 200 });
    await using _ = bridge;
    const run = begin();
    expect((await ask(socketPath, CHAT, chat("[[hang]]"))).status).toBe(400);
    expect(run.error?.code).toBe("ProviderTimeout");
  });

  it("leaves no socket", async () => {
    const { bridge, socketPath } = await open();
    expect((await stat(socketPath)).isSocket()).toBe(true);
    await bridge.close();
    await expect(stat(socketPath)).rejects.toThrow("ENOENT");
  });

  it("does not follow a redirect of the model server", async () => {
    const trap = createServer((_request, response) => response.end("trapped"));
    await new Promise<void>((resolve) => trap.listen(0, "127.0.0.1", resolve));
    const address = trap.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    const { bridge, socketPath, begin } = await open();
    await using _ = bridge;
    begin();
    const { status, body } = await ask(socketPath, CHAT, chat(`[[redirect:http://127.0.0.1:${port}/]]`));
    expect(status).toBe(400);
    expect(body).not.toContain("trapped");
    trap.close();
  });

  it("outlives an event nested so deep that writing it again would overflow the stack", async () => {
    const deep = `${"[".repeat(20_000)}${"]".repeat(20_000)}`;
    const piece = (more: string) => `data: {"choices":[{"delta":{"content":"a"}}]${more}}\n\n`;
    const hostile = createServer((_request, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(piece(""));
      // Later than the first, so that it is written by a timer.
      setTimeout(() => response.end(piece(`,"x":${deep}`)), 20);
    });
    await new Promise<void>((resolve) => hostile.listen(0, "127.0.0.1", resolve));
    try {
      const llmUrl = `http://127.0.0.1:${(hostile.address() as AddressInfo).port}/v1`;
      const { bridge, socketPath, begin } = await open({ llmUrl });
      await using _ = bridge;
      const run = begin();
      const answer = await ask(socketPath, CHAT, chat("x"));
      expect(said(events(answer.body)[0] ?? "")).toBe("a");
      expect(run.error?.code).toBe("ProviderError");
      expect((await ask(socketPath, CHAT, `{"x":${deep}}`)).status).toBe(400);
    } finally {
      hostile.closeAllConnections();
      hostile.close();
    }
  });
});

async function waitUntil(condition: () => boolean): Promise<void> {
  for (const end = performance.now() + 30_000; !condition(); await sleep(10)) {
    if (performance.now() > end) throw new Error("it did not happen within 30 s");
  }
}
