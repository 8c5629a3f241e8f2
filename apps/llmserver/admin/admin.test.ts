import { readFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { DownloadView } from "#schemas";
import { cachedModel, SCRIPTED } from "#tests/support/gguf/index.ts";
import { startHub, type TestHub } from "#tests/support/hub.ts";
import type { LlmUser } from "#tests/support/llm-server.ts";
import { type LocalServer, startLocalServer } from "#tests/support/local-models.ts";

const MODEL = "tiny-scripted";

describe("[LLM-5] administration of local models", () => {
  let hub: TestHub;
  let local: LocalServer;
  let admin: LlmUser;
  beforeAll(async () => {
    hub = await startHub({ "tiny-bpe.gguf": await readFile(await cachedModel("tiny-bpe")) });
    local = await startLocalServer([MODEL], { HF_ENDPOINT: hub.url, CDS_LLM_CONTEXT: "1024" });
    admin = await local.server.user({ role: "admin" });
  });
  afterAll(async () => {
    await local?.[Symbol.asyncDispose]();
    await hub?.[Symbol.asyncDispose]();
  });

  const send = (method: string, path: string, body?: unknown, headers: Record<string, string> = {}) =>
    fetch(local.server.url.replace(/\/v1$/, `/admin${path}`), {
      method,
      headers: {
        authorization: `Bearer ${admin.api_key}`,
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
    });
  const ask = async (...request: Parameters<typeof send>) => {
    const response = await send(...request);
    return { status: response.status, headers: response.headers, body: await response.json() };
  };
  /** The data of every event, until the stream ends. */
  const events = async (response: Response): Promise<DownloadView[]> => {
    expect(response.headers.get("content-type")).toContain("text/event-stream");
    const parts = (await response.text()).split("\n\n").filter((part) => part !== "");
    return parts.map((part) => JSON.parse(part.replace(/^data: /, "")));
  };
  const logged = (what: string) => local.server.logs.filter((line) => line.includes(what));

  it("[LLM-5] POST /admin/load and /admin/unload, with who did it in the log", async () => {
    const loaded = await ask("POST", "/load", { model_id: MODEL, config: { context_size: 512, threads: 1 } });
    expect(loaded).toMatchObject({
      status: 200,
      body: { name: MODEL, is_loaded: true, kind: "chat", config: { context_size: 512, threads: 1 } },
    });
    const user = await local.server.user();
    const say = () =>
      user.client.chat.completions.create({ model: MODEL, messages: [{ role: "user", content: "Hallo" }] });
    expect((await say()).choices[0]?.message.content).toBe(SCRIPTED.plain);
    expect(await ask("POST", "/unload", { model_id: MODEL })).toMatchObject({
      status: 200,
      body: { is_loaded: false, enabled: false },
    });
    await expect(say()).rejects.toMatchObject({ status: 503, code: "model_unloaded" });
    for (const what of ["loaded", "unloaded"]) {
      const [line] = logged(`"${what}":"${MODEL}"`);
      expect(line).toContain(admin.user_id);
    }
    await ask("POST", "/load", { model_id: MODEL });
    await say();
  });

  it("[LLM-5] GET /admin/status tells memory, models, calls and time", async () => {
    await ask("POST", "/load", { model_id: MODEL });
    const { body } = await ask("GET", "/status");
    expect(body).toMatchObject({
      active_calls: 0,
      uptime_seconds: expect.any(Number),
      memory: { reserve_bytes: 1024 ** 3 },
      models: [{ model_id: MODEL, threads: 1, context_size: 512, sequences: 4, sessions: 0 }],
      downloads: 0,
    });
    expect(body.memory.total_bytes).toBeGreaterThan(body.memory.available_bytes);
    expect(body.models[0].memory_bytes).toBeGreaterThan(10e6);
    expect(body.models[0].pid).toBeGreaterThan(0);
  });

  it("[LLM-5] GET /admin/models tells size, kind, settings and price", async () => {
    const { status, body } = await ask("GET", "/models");
    expect(status).toBe(200);
    const { billing } = local.server.config;
    expect(body.models).toMatchObject([
      {
        ...{ name: MODEL, file: `${MODEL}.gguf`, kind: "chat", enabled: true },
        config: { context_size: 512, threads: 1 },
        price: { input_per_million: billing.inputPerMillion, output_per_million: billing.outputPerMillion },
      },
    ]);
    expect(body.models[0].size_bytes).toBeGreaterThan(100_000);
  });

  it("[LLM-5] POST /admin/download answers at once, or with events until it is done", async () => {
    const huggingface_url = "acme/tiny/tiny-bpe.gguf";
    const started = await ask("POST", "/download", { huggingface_url, model_id: "fetched" });
    expect(started).toMatchObject({
      status: 202,
      body: { download_id: expect.any(String), model_id: "fetched" },
    });
    const { download_id } = started.body;
    const seen = await events(await send("GET", `/downloads/${download_id}/events`));
    expect(seen.at(-1)).toMatchObject({ id: download_id, state: "done", model_id: "fetched" });
    const { body } = await ask("GET", "/downloads");
    expect(body.downloads).toEqual([seen.at(-1)]);
    expect(await ask("DELETE", "/models/fetched")).toMatchObject({ status: 200, body: { removed: true } });
    expect(await ask("DELETE", "/models/fetched")).toMatchObject({ status: 404 });
    const again = await events(
      await send("POST", "/download", { huggingface_url }, { accept: "text/event-stream" }),
    );
    expect(again.at(-1)).toMatchObject({ state: "done", model_id: "tiny-bpe" });
    const { body: after } = await ask("GET", "/models");
    expect(after.models.map(({ name }: { name: string }) => name)).toEqual(["tiny-bpe", MODEL]);
    await ask("DELETE", "/models/tiny-bpe");
    expect(logged('"removed":"tiny-bpe"')[0]).toContain(admin.user_id);
  });

  it("[LLM-5] DELETE /admin/downloads/:id cancels; whoever only stops watching does not", async () => {
    hub.faults.hold = { after: 1000 };
    const watcher = new AbortController();
    const response = await fetch(local.server.url.replace(/\/v1$/, "/admin/download"), {
      method: "POST",
      headers: {
        ...{ authorization: `Bearer ${admin.api_key}`, "content-type": "application/json" },
        accept: "text/event-stream",
      },
      body: JSON.stringify({ huggingface_url: "acme/tiny/tiny-bpe.gguf" }),
      signal: watcher.signal,
    });
    const reader = response.body?.getReader();
    await reader?.read();
    watcher.abort();
    const latest = async (): Promise<DownloadView> => (await ask("GET", "/downloads")).body.downloads.at(-1);
    await expect.poll(async () => (await latest()).state).toBe("downloading");
    const { id } = await latest();
    const watching = send("GET", `/downloads/${id}/events`).then(events);
    expect(await ask("DELETE", `/downloads/${id}`)).toMatchObject({
      status: 200,
      body: { state: "cancelled" },
    });
    expect((await watching).at(-1)).toMatchObject({ state: "cancelled", error: { code: "Cancelled" } });
    delete hub.faults.hold;
  });

  it("refuses bad input in the house's envelope, naming the field", async () => {
    const wrong: [path: string, body: unknown, field: string][] = [
      ["/load", {}, "model_id"],
      ["/load", { model_id: "../etc/passwd" }, "model_id"],
      ["/load", { model_id: MODEL, config: { threads: 0 } }, "config.threads"],
      ["/load", { model_id: MODEL, config: { threads: "2" } }, "config.threads"],
      ["/load", { model_id: MODEL, config: { context_size: 1e9 } }, "config.context_size"],
      ["/load", { model_id: MODEL, config: { temperature: 3 } }, "config.temperature"],
      ["/load", { model_id: MODEL, config: { gpu: true } }, "config.gpu"],
      ["/load", { model_id: MODEL, config: { sequences: 1.5 } }, "config.sequences"],
      ["/load", { model_id: MODEL, config: { speed: 1 } }, "config"],
      ["/unload", { model_id: 7 }, "model_id"],
      ["/download", { huggingface_url: "" }, "huggingface_url"],
      ["/download", { huggingface_url: "acme/tiny/tiny-bpe.gguf", model_id: "a b" }, "model_id"],
      ["/download", { huggingface_url: "acme/tiny/tiny-bpe.gguf", model_id: "demo" }, "model_id"],
    ];
    for (const [path, body, field] of wrong) {
      const answer = await ask("POST", path, body);
      expect([path, body, answer.status, answer.body.error.code]).toEqual([path, body, 400, "InvalidParams"]);
      expect(answer.body.error.issues[0].path).toBe(field);
    }
    const others: [string, string, unknown, number, string][] = [
      ["POST", "/download", { huggingface_url: "https://example.com/a/b.gguf" }, 400, "InvalidParams"],
      ["POST", "/load", "{", 400, "ParseError"],
      ["POST", "/load", JSON.stringify({ model_id: MODEL, x: "x".repeat(70_000) }), 413, "PayloadTooLarge"],
      ["POST", "/load", { model_id: "nobody" }, 404, "ModelNotFound"],
      ["POST", "/unload", { model_id: "nobody" }, 404, "ModelNotFound"],
      ["DELETE", "/models/nobody", undefined, 404, "ModelNotFound"],
      ["DELETE", "/models/..%2f..%2fetc", undefined, 404, "ModelNotFound"],
      ["DELETE", "/downloads/nothing", undefined, 404, "NotFound"],
      ["GET", "/downloads/nothing/events", undefined, 404, "NotFound"],
    ];
    for (const [method, path, body, status, code] of others) {
      const answer = await ask(method, path, body);
      expect([path, answer.status, answer.body.error.code]).toEqual([path, status, code]);
    }
  });

  it("is refused to everybody else, whatever they send", async () => {
    const user = await local.server.user({ role: "developer" });
    for (const [method, path] of [
      ...[["POST", "/load"] as const, ["POST", "/unload"] as const, ["POST", "/download"] as const],
      ...[["GET", "/status"] as const, ["GET", "/models"] as const, ["GET", "/downloads"] as const],
      ...[["DELETE", "/models/x"] as const, ["DELETE", "/downloads/x"] as const],
      ["GET", "/downloads/x/events"] as const,
    ]) {
      const body = method === "POST" ? "{" : undefined;
      const as = async (authorization: string) =>
        (await ask(method, path, body, { authorization })).body.error.code;
      expect([path, await as(`Bearer ${user.api_key}`)]).toEqual([path, "Forbidden"]);
      expect([path, await as("")]).toEqual([path, "Unauthenticated"]);
    }
  });
});
