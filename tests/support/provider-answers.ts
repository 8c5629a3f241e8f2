import type { ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import type { ProviderUsage, RecordedRequest, Reply } from "./provider-replies.ts";

/** Answer one chat request as `reply` says. */
export async function answer(response: ServerResponse, record: RecordedRequest, reply: Reply): Promise<void> {
  const { fault } = reply;
  if (reply.firstByteMs !== undefined) await sleep(reply.firstByteMs);
  await reply.until;
  if (fault === "hang") return;
  if (fault === "reset") return void response.destroy();
  if (fault === "429") {
    response.setHeader("retry-after", String(reply.retryAfterSeconds ?? 1));
    return sendError(response, 429, "Rate limit reached for requests", "rate_limit_exceeded", record);
  }
  if (fault === "400")
    return sendError(response, 400, "Unsupported value for temperature", "unsupported_value", record);
  if (fault === "401") {
    return sendError(
      response,
      401,
      `Incorrect API key provided: ${record.key}. Find yours at ${encodeURIComponent(record.key)}`,
      "invalid_api_key",
      record,
    );
  }
  if (fault === "500")
    return sendError(
      response,
      500,
      `The server had an error (request of ${record.key})`,
      "server_error",
      record,
    );
  if (fault === "503") return sendError(response, 503, "Overloaded", "overloaded", record);
  if (fault === "redirect") {
    response.writeHead(302, { location: reply.redirectTo ?? "http://127.0.0.1:9/" });
    return void response.end();
  }
  if (fault === "html") {
    response.writeHead(200, { "content-type": "text/html" });
    return void response.end("<html><body>Welcome to the captive portal</body></html>");
  }
  await (record.body.stream === true ? stream(response, record, reply) : whole(response, record, reply));
}

function deltasOf(reply: Reply): string[] {
  if (reply.bytes !== undefined) {
    const piece = `${"filler ".repeat(146)}\n`;
    return Array.from({ length: Math.ceil(reply.bytes / piece.length) }, () => piece);
  }
  if (Array.isArray(reply.text)) return reply.text;
  return (reply.text ?? "").match(/\S+\s*/g) ?? [];
}

function usageOf(record: RecordedRequest, reply: Reply, deltas: number): ProviderUsage {
  if (typeof reply.usage === "object") return reply.usage;
  const prompt_tokens = Math.max(1, Math.ceil(JSON.stringify(record.body.messages ?? []).length / 4));
  return {
    prompt_tokens,
    completion_tokens: (deltas + (reply.toolCalls?.length ?? 0) * 12) * choicesOf(record).length,
    cached_tokens: Math.floor(prompt_tokens / 10),
  };
}

function wireUsage(usage: ProviderUsage): Record<string, unknown> {
  return {
    prompt_tokens: usage.prompt_tokens,
    completion_tokens: usage.completion_tokens,
    total_tokens: usage.prompt_tokens + usage.completion_tokens,
    prompt_tokens_details: { cached_tokens: usage.cached_tokens },
  };
}

function wireCalls(
  reply: Reply,
): { index: number; id: string; type: "function"; function: { name: string; arguments: string } }[] {
  return (reply.toolCalls ?? []).map((call, index) => ({
    index,
    id: `call_${crypto.randomUUID().slice(0, 12)}`,
    type: "function",
    function: { name: call.name, arguments: JSON.stringify(call.arguments) },
  }));
}

/** `n` choices say all the same. */
const choicesOf = ({ body }: RecordedRequest) => Array.from({ length: body.n ?? 1 }, (_, index) => index);

const finishOf = (reply: Reply) =>
  reply.finishReason ?? ((reply.toolCalls?.length ?? 0) > 0 ? "tool_calls" : "stop");

async function whole(response: ServerResponse, record: RecordedRequest, reply: Reply): Promise<void> {
  const deltas = deltasOf(reply);
  if (reply.fault === "hang-stream") {
    response.writeHead(200, { "content-type": "application/json" });
    return void response.write('{"id":');
  }
  if (reply.fault === "half-chunk" || reply.fault === "error-event" || reply.fault === "no-done") {
    response.writeHead(200, { "content-type": "application/json" });
    response.write('{"id":"chatcmpl-1","choices":[{"mess', () => response.destroy());
    return;
  }
  await sleep((reply.delayMs ?? 0) * deltas.length);
  const usage = usageOf(record, reply, deltas.length);
  const calls = wireCalls(reply).map(({ index: _, ...call }) => call);
  const message = {
    role: "assistant",
    content: deltas.join(""),
    ...(calls.length > 0 ? { tool_calls: calls } : {}),
  };
  const body = {
    id: "chatcmpl-scripted",
    object: "chat.completion",
    created: 1_700_000_000,
    model: record.body.model,
    choices: choicesOf(record).map((index) => ({ index, message, finish_reason: finishOf(reply) })),
    ...(reply.usage === "none"
      ? {}
      : {
          usage:
            reply.usage === "wrong" ? { prompt_tokens: -5, completion_tokens: "many" } : wireUsage(usage),
        }),
  };
  record.streamed = deltas.join("");
  if (reply.usage !== "none" && reply.usage !== "wrong") record.reported = usage;
  sendJson(response, 200, body, record);
}

async function stream(response: ServerResponse, record: RecordedRequest, reply: Reply): Promise<void> {
  const deltas = deltasOf(reply);
  const send = async (event: unknown) => {
    if (response.destroyed) throw new Error("the caller is gone");
    record.firstByteAt ??= performance.now();
    if (!response.write(`data: ${typeof event === "string" ? event : JSON.stringify(event)}\n\n`)) {
      await drained(response);
    }
  };
  const chunk = (delta: unknown, finish: string | null = null, usage?: unknown) => ({
    id: "chatcmpl-scripted",
    object: "chat.completion.chunk",
    created: 1_700_000_000,
    model: record.body.model,
    choices: choicesOf(record).map((index) => ({ index, delta, finish_reason: finish })),
    ...(usage === undefined ? {} : { usage }),
  });
  response.writeHead(200, { "content-type": "text/event-stream", "x-upstream-secret": "must not travel" });
  await send(chunk({ role: "assistant", content: "" }));
  const half = Math.ceil(deltas.length / 2);
  for (const [index, delta] of deltas.entries()) {
    if (reply.fault !== undefined && index === half) return breakOff(response, record, reply, send);
    if ((reply.delayMs ?? 0) > 0) await sleep(reply.delayMs);
    const soFar = usageOf(record, reply, index + 1);
    if (reply.usage === "continuous") record.reported = soFar;
    await send(chunk({ content: delta }, null, reply.usage === "continuous" ? wireUsage(soFar) : undefined));
    record.streamed += delta;
  }
  if (reply.fault !== undefined) return breakOff(response, record, reply, send);
  for (const call of wireCalls(reply)) await sendCall(call, (delta) => send(chunk(delta)));
  await send(chunk({}, finishOf(reply)));
  if (record.body.stream_options?.include_usage === true && reply.usage !== "none") {
    const usage = usageOf(record, reply, deltas.length);
    if (reply.usage !== "wrong") record.reported = usage;
    const told =
      reply.usage === "wrong" ? { prompt_tokens: -5, completion_tokens: "many" } : wireUsage(usage);
    await send({ ...chunk({}), choices: [], usage: told });
  }
  await send("[DONE]");
  record.completed = true;
  response.end();
}

function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      response.off("drain", done);
      response.off("close", done);
      resolve();
    };
    response.on("drain", done);
    response.on("close", done);
  });
}

/** As real providers do: the head of the call first, its arguments in pieces after. */
async function sendCall(
  call: ReturnType<typeof wireCalls>[number],
  send: (delta: unknown) => Promise<void>,
): Promise<void> {
  const { arguments: args, name } = call.function;
  await send({ tool_calls: [{ ...call, function: { name, arguments: "" } }] });
  for (let at = 0; at < args.length; at += 40) {
    await send({ tool_calls: [{ index: call.index, function: { arguments: args.slice(at, at + 40) } }] });
  }
}

async function breakOff(
  response: ServerResponse,
  record: RecordedRequest,
  reply: Reply,
  send: (event: unknown) => Promise<void>,
): Promise<void> {
  if (reply.fault === "hang-stream") return;
  if (reply.fault === "half-chunk") {
    response.write('data: {"id":"chatcmpl-scripted","choices":[{"index":0,"delta":{"con', () =>
      response.destroy(),
    );
    return;
  }
  if (reply.fault === "error-event") {
    await send({
      error: { message: `Internal failure for key ${record.key}`, type: "server_error", code: null },
    });
  }
  record.completed = true;
  response.end();
}

export function sendError(
  response: ServerResponse,
  status: number,
  message: string,
  code: string,
  record: RecordedRequest,
): void {
  sendJson(response, status, { error: { message, type: "provider_error", param: null, code } }, record);
}

export function sendJson(
  response: ServerResponse,
  status: number,
  body: unknown,
  record: RecordedRequest,
): void {
  record.firstByteAt = performance.now();
  record.completed = true;
  response.writeHead(status, { "content-type": "application/json", "x-upstream-secret": "must not travel" });
  response.end(JSON.stringify(body));
}
