import { createServer, type IncomingMessage, request, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { startLlmServer } from "../tests/support/llm-server.ts";

/** The processes `gateway.ts` measures, one role each: told its address by IPC, asked for its memory. */

export interface PeerReady {
  url: string;
  /** Callers take turns with these. */
  api_keys: string[];
}

/** As many as streams in the middle scenario: one account for all would measure its row's lock. */
const USERS = 50;

const roles: Record<string, (upstream: string) => Promise<PeerReady>> = { provider, pipe, gateway };

const [, , role = "", upstream = ""] = process.argv;
/** What the ledger says was used; only the gateway has one. */
let bill = async () => ({ calls: 0, output_tokens: 0, open: 0 });

const started = await roles[role]?.(upstream);
process.on("message", async (question) => {
  if (question === "bill") process.send?.(await bill());
  else process.send?.({ rss: process.memoryUsage.rss() });
});
process.on("disconnect", () => process.exit(0));
process.send?.(started);

/** Streams as many chunks as the prompt says, each with the time it left. */
async function provider(): Promise<PeerReady> {
  return listen(async (incoming, response) => {
    let text = "";
    for await (const part of incoming) text += part;
    const { messages } = JSON.parse(text);
    const [chunks = 0, gapMs = 0] = String(messages[0].content).split(" ").map(Number);
    response.writeHead(200, { "content-type": "text/event-stream" });
    for (let sent = 0; sent < chunks; sent += 1) {
      const choice = { index: 0, delta: { content: `${process.hrtime.bigint()} ` }, finish_reason: null };
      const ready = response.write(`data: ${chunk({ choices: [choice] })}\n\n`);
      if (response.destroyed) return;
      if (gapMs > 0) await sleep(gapMs);
      else if (!ready) await new Promise((resolve) => response.once("drain", resolve));
    }
    response.write(`data: ${chunk({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }] })}\n\n`);
    const usage = { prompt_tokens: 10, completion_tokens: chunks, total_tokens: chunks + 10 };
    response.end(`data: ${chunk({ choices: [], usage })}\n\ndata: [DONE]\n\n`);
  });
}

function chunk(fields: object): string {
  return JSON.stringify({
    id: "chatcmpl-bench",
    object: "chat.completion.chunk",
    created: 1_700_000_000,
    model: "bench",
    ...fields,
  });
}

/** The least a proxy can do: bytes from one socket to the other. */
async function pipe(upstreamUrl: string): Promise<PeerReady> {
  return listen(async (incoming, response) => {
    const target = request(`${upstreamUrl}/chat/completions`, { method: "POST", headers: incoming.headers });
    target.on("response", (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    });
    incoming.pipe(target);
  });
}

/** The product: authentication, hold and settle in PostgreSQL, every event parsed, the key struck out. */
async function gateway(upstreamUrl: string): Promise<PeerReady> {
  const server = await startLlmServer({
    LOG_LEVEL: "warn",
    CDS_REQUESTS_PER_USER: "100000",
    CDS_REQUESTS_PER_USER_BURST: "100000",
    CDS_LLM_REQUESTS_PER_MINUTE: "0",
    CDS_LLM_TOKENS_PER_MINUTE: "0",
    CDS_LLM_KEY_REQUESTS_PER_MINUTE: "0",
    CDS_LLM_KEY_TOKENS_PER_MINUTE: "0",
    CDS_MAX_TOKENS: "100000",
  });
  const key = { base_url: upstreamUrl, api_key: "sk-bench-0123456789abcdef" };
  const api_keys: string[] = [];
  for (let count = 0; count < USERS; count += 1) {
    api_keys.push((await server.user({ balance: 1e12, provider: key })).api_key);
  }
  process.once("disconnect", () => void server[Symbol.asyncDispose]());
  bill = async () => {
    const used = await server.db.selectFrom("tokens_used").select("output_tokens").execute();
    const open = await server.db.selectFrom("llm_calls").select("id").where("state", "=", "open").execute();
    const output_tokens = used.reduce((sum, row) => sum + row.output_tokens, 0);
    return { calls: used.length, output_tokens, open: open.length };
  };
  return { url: server.url, api_keys };
}

async function listen(
  serve: (incoming: IncomingMessage, response: ServerResponse) => Promise<void>,
): Promise<PeerReady> {
  const server = createServer((incoming, response) => {
    serve(incoming, response).catch(() => response.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`, api_keys: ["sk-none"] };
}
