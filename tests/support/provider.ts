import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { answer, sendError, sendJson } from "./provider-answers.ts";
import { answerCompletion, answerEmbedding } from "./provider-others.ts";
import {
  type ChatBody,
  defaultReply,
  lastPrompt,
  type ProviderUsage,
  type RecordedRequest,
  type Reply,
} from "./provider-replies.ts";

/** Chosen before every other behaviour; the newest matching rule wins. */
interface Rule {
  key?: string;
  model?: string;
  /** Part of the last user message. */
  prompt?: string | RegExp;
  reply: Reply | ((body: ChatBody, request: RecordedRequest) => Reply);
}

export interface ScriptedProvider {
  /** `http://127.0.0.1:<port>/v1` */
  readonly baseUrl: string;
  readonly requests: RecordedRequest[];
  /** Adds a rule. Without rules: directives in the prompt, else a task of three steps, else plain text. */
  script(rule: Rule): void;
  /** Exact sum of the usage reported, for one key or for all. */
  totals(key?: string): ProviderUsage & { requests: number };
  /** Requests for a model's work with this key (or all). */
  requestsOf(key?: string): RecordedRequest[];
  /** Resolves when so many requests have come in; rejects after `timeoutMs` (default 30 s). */
  waitForRequests(count: number, timeoutMs?: number): Promise<void>;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface ScriptedProviderOptions {
  /** Keys that are let in; without it every key is. */
  keys?: string[];
  models?: string[];
  /** Pause before every delta unless the reply says otherwise, ms. */
  delayMs?: number;
  host?: string;
}

/** Start an OpenAI-compatible server on a free loopback port that answers by script and counts exactly. */
export async function startScriptedProvider(
  options: ScriptedProviderOptions = {},
): Promise<ScriptedProvider> {
  const requests: RecordedRequest[] = [];
  const rules: Rule[] = [];
  const strikes = new Map<string, number>();
  const server = createServer((request, response) => {
    serve(request, response, { requests, rules, strikes, options }).catch(() => response.destroy());
  });
  server.listen(0, options.host ?? "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const close = () => closeServer(server);
  const requestsOf = (key?: string) =>
    requests.filter(
      (item) => /\/(completions|embeddings)$/.test(item.path) && (key === undefined || item.key === key),
    );
  return {
    baseUrl: `http://${options.host ?? "127.0.0.1"}:${port}/v1`,
    requests,
    script: (rule) => void rules.unshift(rule),
    requestsOf,
    totals: (key) => sum(requestsOf(key)),
    async waitForRequests(count, timeoutMs = 30_000) {
      const end = performance.now() + timeoutMs;
      while (requests.length < count) {
        if (performance.now() > end) throw new Error(`only ${requests.length} of ${count} requests came in`);
        await sleep(5);
      }
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function closeServer(server: Server): Promise<void> {
  if (!server.listening) return;
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
}

function sum(requests: RecordedRequest[]): ProviderUsage & { requests: number } {
  const total = { prompt_tokens: 0, completion_tokens: 0, cached_tokens: 0, requests: 0 };
  for (const { reported } of requests) {
    if (reported === undefined) continue;
    total.prompt_tokens += reported.prompt_tokens;
    total.completion_tokens += reported.completion_tokens;
    total.cached_tokens += reported.cached_tokens;
    total.requests += 1;
  }
  return total;
}

interface State {
  requests: RecordedRequest[];
  rules: Rule[];
  strikes: Map<string, number>;
  options: ScriptedProviderOptions;
}

async function serve(request: IncomingMessage, response: ServerResponse, state: State): Promise<void> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  const raw = Buffer.concat(chunks).toString();
  const body = parse(raw);
  const record: RecordedRequest = {
    at: performance.now(),
    method: request.method ?? "",
    path: request.url ?? "",
    key: (request.headers.authorization ?? "").replace(/^Bearer /, ""),
    headers: request.headers,
    raw,
    body,
    prompt: lastPrompt(body),
    streamed: "",
    aborted: false,
    completed: false,
  };
  state.requests.push(record);
  response.on("close", () => {
    record.endedAt = performance.now();
    record.aborted = !record.completed;
  });
  if (state.options.keys !== undefined && !state.options.keys.includes(record.key)) {
    return sendError(response, 401, `Incorrect API key provided: ${record.key}.`, "invalid_api_key", record);
  }
  if (record.method === "GET" && record.path.endsWith("/models")) {
    const data = (state.options.models ?? ["scripted"]).map((id) => ({
      id,
      object: "model",
      owned_by: "tests",
    }));
    return sendJson(response, 200, { object: "list", data }, record);
  }
  if (record.path.endsWith("/embeddings")) return answerEmbedding(response, record);
  const chat = record.path.endsWith("/chat/completions");
  if (!chat && record.path.endsWith("/completions")) return answerCompletion(response, record);
  if (!chat) {
    return sendError(response, 404, `No such route: ${record.path}`, "not_found", record);
  }
  const reply = choose(record, state);
  record.reply = reply;
  await answer(response, record, { delayMs: state.options.delayMs ?? 0, ...reply });
}

function parse(raw: string): ChatBody {
  try {
    return JSON.parse(raw);
  } catch {
    return {};
  }
}

function choose(record: RecordedRequest, { rules, strikes }: State): Reply {
  const rule = rules.find(
    (item) =>
      (item.key === undefined || item.key === record.key) &&
      (item.model === undefined || item.model === record.body.model) &&
      (item.prompt === undefined ||
        (typeof item.prompt === "string"
          ? record.prompt.includes(item.prompt)
          : item.prompt.test(record.prompt))),
  );
  const made = typeof rule?.reply === "function" ? rule.reply(record.body, record) : rule?.reply;
  const reply: Reply = { ...(made ?? defaultReply(record.body)) };
  if (reply.fault !== undefined && reply.times !== undefined) {
    const id =
      rule === undefined
        ? `${record.key}\n${record.prompt}`
        : `${record.key}\nrule ${rules.length - rules.indexOf(rule)}`;
    const count = (strikes.get(id) ?? 0) + 1;
    strikes.set(id, count);
    if (count > reply.times) delete reply.fault;
  }
  return reply;
}
