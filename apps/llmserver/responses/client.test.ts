import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { toResponseInputItems } from "openai/lib/responses/ResponseInputItems";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { toApiError } from "../api-error.ts";
import { parseResponsesRequest, ResponseStream, toChatBody, toResponse } from "./index.ts";

/** OpenAI's own client against the translation, over real HTTP: its accumulator checks every event. */

type Json = Record<string, unknown>;

/** What the model does: a whole message, or its pieces; how it finishes; whether it breaks then. */
interface Script {
  message: Json;
  deltas: Json[];
  finish?: string;
  logprobs?: Json;
  breaks?: boolean;
}

const usage = { input_tokens: 7, output_tokens: 5, cached_tokens: 2 };
const failure = { message: "It broke.", type: "server_error", code: "provider_incomplete" };

let server: Server;
let client: OpenAI;
let script: Script;
/** What the model was asked, as a chat. */
let asked: Json;

async function answer(request: IncomingMessage, reply: ServerResponse): Promise<void> {
  let text = "";
  for await (const part of request) text += part;
  try {
    const parsed = parseResponsesRequest(JSON.parse(text));
    asked = toChatBody(parsed);
    const meta = { response_id: "resp_0123", model: parsed.model, created: 1_700_000_000 };
    const { message, deltas, finish = "stop", logprobs = null, breaks } = script;
    if (!parsed.stream) {
      const completion = { choices: [{ index: 0, message, logprobs, finish_reason: finish }] };
      reply.setHeader("content-type", "application/json");
      reply.end(JSON.stringify(toResponse(parsed, completion, meta, usage)));
      return;
    }
    const stream = new ResponseStream(parsed, meta);
    const chunks = deltas.map((delta) => ({ choices: [{ index: 0, delta, logprobs, finish_reason: null }] }));
    const last = { choices: [{ index: 0, delta: {}, finish_reason: finish }] };
    const end = () =>
      breaks === true ? stream.fail(failure) : [...stream.event(last), ...stream.end(usage)];
    const frames = [...stream.start(), ...chunks.flatMap((chunk) => stream.event(chunk)), ...end()];
    reply.setHeader("content-type", "text/event-stream");
    for (const { event, data } of frames) reply.write(`event: ${event}\ndata: ${data}\n\n`);
    reply.end();
  } catch (error) {
    const told = toApiError(error);
    reply.writeHead(told.status, { "content-type": "application/json" }).end(JSON.stringify(told.envelope()));
  }
}

beforeAll(async () => {
  server = createServer((request, reply) => void answer(request, reply));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  client = new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1`, apiKey: "sk-nobody", maxRetries: 0 });
});

afterAll(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

const input = "What is it?";
const model = "m";
const says = (text: string): Script => ({
  message: { role: "assistant", content: text },
  deltas: [{ role: "assistant", content: "" }, ...[...text].map((content) => ({ content }))],
});

const toolCall = (index: number, name: string, args: string) => ({
  ...{ index, id: `c${index}`, type: "function" },
  function: { name, arguments: args },
});
/** Thinks, speaks and calls two functions, whose arguments come side by side. */
const everything: Script = {
  message: {
    ...{ role: "assistant", reasoning_content: "Let me see.", content: "I look." },
    tool_calls: [toolCall(0, "look", '{"at":"a"}'), toolCall(1, "look", '{"at":"b"}')],
  },
  deltas: [
    { role: "assistant", reasoning_content: "Let me" },
    { reasoning_content: " see." },
    { content: "I " },
    { content: "look." },
    { tool_calls: [toolCall(0, "look", "")] },
    { tool_calls: [toolCall(1, "look", '{"at"')] },
    {
      tool_calls: [
        { index: 0, function: { arguments: '{"at":"a"}' } },
        { index: 1, function: { arguments: ':"b"}' } },
      ],
    },
  ],
  finish: "tool_calls",
};
const look: OpenAI.Responses.FunctionTool = {
  ...{ type: "function", name: "look", strict: true },
  parameters: {
    type: "object",
    properties: { at: { type: "string" } },
    required: ["at"],
    additionalProperties: false,
  },
};

describe("OpenAI's client", () => {
  it("reads a whole response", async () => {
    script = says("A cat.");
    const response = await client.responses.create({ model, input, metadata: { a: "b" } });
    expect(response.output_text).toBe("A cat.");
    expect(response).toMatchObject({ status: "completed", metadata: { a: "b" }, model });
    expect(response.usage).toMatchObject({ input_tokens: 7, output_tokens: 5, total_tokens: 12 });
    expect(asked).toEqual({ model, stream: false, messages: [{ role: "user", content: input }] });
  });

  it("reads events one by one", async () => {
    script = says("A cat.");
    const types: string[] = [];
    let text = "";
    for await (const event of await client.responses.create({ model, input, stream: true })) {
      types.push(event.type);
      if (event.type === "response.output_text.delta") text += event.delta;
    }
    expect(text).toBe("A cat.");
    expect([...new Set(types)]).toEqual([
      "response.created",
      "response.in_progress",
      "response.output_item.added",
      "response.content_part.added",
      "response.output_text.delta",
      "response.output_text.done",
      "response.content_part.done",
      "response.output_item.done",
      "response.completed",
    ]);
  });

  it("adds up a stream to what it reads whole", async () => {
    script = everything;
    const body = { model, input, tools: [look] };
    const whole = await client.responses.parse(body);
    const stream = client.responses.stream(body);
    const snapshots: string[] = [];
    stream.on("response.function_call_arguments.delta", ({ snapshot }) => snapshots.push(snapshot));
    const streamed = await stream.finalResponse();
    expect(streamed).toEqual(whole);
    expect(streamed.output_text).toBe("I look.");
    expect(streamed.output.map(({ type }) => type)).toEqual([
      ...["reasoning", "message", "function_call", "function_call"],
    ]);
    expect(streamed.output.slice(2)).toMatchObject([
      { call_id: "c0", name: "look", parsed_arguments: { at: "a" }, status: "completed" },
      { call_id: "c1", name: "look", parsed_arguments: { at: "b" }, status: "completed" },
    ]);
    expect(snapshots).toEqual(['{"at"', '{"at":"a"}', '{"at":"b"}']);
  });

  it("adds up a summary of the reasoning, and a refusal", async () => {
    script = {
      message: {},
      deltas: [{ reasoning: "No" }, { reasoning: "pe." }, { refusal: "I " }, { refusal: "won't." }],
    };
    const body = { model, input, reasoning: { summary: "auto" as const } };
    const { output } = await client.responses.stream(body).finalResponse();
    expect(output).toMatchObject([
      { type: "reasoning", summary: [{ type: "summary_text", text: "Nope." }] },
      { type: "message", content: [{ type: "refusal", refusal: "I won't." }] },
    ]);
  });

  it("adds up items that begin anew", async () => {
    const again = everything.deltas.toReversed().filter(({ tool_calls }) => tool_calls === undefined);
    script = { message: {}, deltas: [...everything.deltas, { content: "\n" }, ...again] };
    const { output, output_text } = await client.responses.stream({ model, input }).finalResponse();
    expect(output.map(({ type }) => type)).toEqual([
      ...["reasoning", "message", "function_call", "function_call", "message", "reasoning"],
    ]);
    expect(output_text).toBe("I look.\nlook.I ");
  });

  it("adds up probabilities", async () => {
    const entry = { token: "x", logprob: -1, bytes: [120], top_logprobs: [] };
    script = { ...says("xx"), deltas: [{ content: "x" }, { content: "x" }], logprobs: { content: [entry] } };
    const body = { model, input, include: ["message.output_text.logprobs" as const] };
    const { output } = await client.responses.stream(body).finalResponse();
    expect(asked).toMatchObject({ logprobs: true });
    expect(output).toMatchObject([{ content: [{ text: "xx", logprobs: [entry, entry] }] }]);
  });

  it("parses what follows a schema, whole and streamed", async () => {
    script = says('{"city":"Rome"}');
    const format = zodTextFormat(z.object({ city: z.string() }), "place");
    const whole = await client.responses.parse({ model, input, text: { format } });
    expect(whole.output_parsed).toEqual({ city: "Rome" });
    expect(asked.response_format).toMatchObject({
      type: "json_schema",
      json_schema: { name: "place", strict: true, schema: { required: ["city"] } },
    });
    const streamed = await client.responses.stream({ model, input, text: { format } }).finalResponse();
    expect(streamed.output_parsed).toEqual({ city: "Rome" });
  });

  it("takes a function's output back with the whole history", async () => {
    script = everything;
    const history: OpenAI.Responses.ResponseInputItem[] = [{ role: "user", content: input }];
    const first = await client.responses.stream({ model, input: history, tools: [look] }).finalResponse();
    history.push(...toResponseInputItems(first.output));
    for (const item of first.output) {
      if (item.type !== "function_call") continue;
      const { at } = z.object({ at: z.string() }).parse(item.parsed_arguments);
      history.push({ type: "function_call_output", call_id: item.call_id, output: `a cat at ${at}` });
    }
    script = says("Two cats.");
    const second = await client.responses.create({ model, input: history, tools: [look] });
    expect(second.output_text).toBe("Two cats.");
    const { type, name, parameters, strict } = look;
    expect(asked.tools).toEqual([{ type, function: { name, parameters, strict } }]);
    const call = ({ id, type, function: called }: ReturnType<typeof toolCall>) => ({
      id,
      type,
      function: called,
    });
    expect(asked.messages).toEqual([
      { role: "user", content: input },
      {
        ...{ role: "assistant", content: "I look." },
        tool_calls: [call(toolCall(0, "look", '{"at":"a"}')), call(toolCall(1, "look", '{"at":"b"}'))],
      },
      { role: "tool", tool_call_id: "c0", content: "a cat at a" },
      { role: "tool", tool_call_id: "c1", content: "a cat at b" },
    ]);
  });

  it("sees that an answer was cut off, whole and streamed", async () => {
    script = { ...everything, finish: "length" };
    const whole = await client.responses.create({ model, input, max_output_tokens: 3 });
    const streamed = await client.responses.stream({ model, input, max_output_tokens: 3 }).finalResponse();
    expect(asked.max_tokens).toBe(3);
    for (const response of [whole, streamed]) {
      expect(response.status).toBe("incomplete");
      expect(response.incomplete_details).toEqual({ reason: "max_output_tokens" });
      expect(response.output.at(-1)).toMatchObject({ type: "function_call", status: "incomplete" });
    }
  });

  it("sees what had come of an answer that broke, and why it did", async () => {
    script = { ...says("A cat."), breaks: true };
    const statuses: unknown[] = [];
    const read = async () => {
      for await (const event of await client.responses.create({ model, input, stream: true })) {
        if (event.type === "response.failed") statuses.push(event.response.output[0]);
      }
    };
    const broke = { message: "It broke.", code: "provider_incomplete", type: "server_error" };
    await expect(read()).rejects.toMatchObject(broke);
    expect(statuses).toMatchObject([{ status: "incomplete", content: [{ text: "A cat." }] }]);
    await expect(client.responses.stream({ model, input }).finalResponse()).rejects.toMatchObject(broke);
  });

  it("reads why a request is refused", async () => {
    const refused = client.responses.create({ model, input, previous_response_id: "resp_1" });
    await expect(refused).rejects.toBeInstanceOf(OpenAI.BadRequestError);
    await expect(refused).rejects.toMatchObject({
      ...{ status: 400, param: "previous_response_id", code: "unsupported_parameter" },
    });
  });
});
