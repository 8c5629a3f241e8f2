import type { Response, ResponseStreamEvent } from "openai/resources/responses/responses";
import { describe, expect, expectTypeOf, it } from "vitest";
import type { ResponseEventType } from "./emit.ts";
import { parseResponsesRequest, ResponseStream, toResponse } from "./index.ts";

const meta = { response_id: "resp_ab", model: "m", created: 1000 };
const usage = { input_tokens: 7, output_tokens: 5, cached_tokens: 2 };
const request = (body: Record<string, unknown> = {}) =>
  parseResponsesRequest({ model: "m", input: "x", ...body });

/** OpenAI's events that tell of items; the stream numbers them. */
type Unnumbered<T> = T extends unknown ? Omit<T, "sequence_number"> : never;
type ItemEvent = Unnumbered<Exclude<ResponseStreamEvent, { response: unknown }>>;

type Chunk = Record<string, unknown>;
const delta = (fields: Chunk, rest: Chunk = {}): Chunk => ({
  choices: [{ index: 0, delta: fields, finish_reason: null, ...rest }],
});
const finish = (finish_reason: string): Chunk => delta({}, { finish_reason });
const callDelta = (index: unknown, fields: Chunk, id?: unknown) =>
  delta({ tool_calls: [{ index, ...(id === undefined ? {} : { id }), function: fields }] });

type Told = { type: string; sequence_number: number; [field: string]: unknown };

function told(stream: ResponseStream, chunks: readonly Chunk[], end = () => stream.end(usage)): Told[] {
  const frames = [...stream.start(), ...chunks.flatMap((chunk) => stream.event(chunk)), ...end()];
  return frames.map(({ event, data }) => {
    const read: Told = JSON.parse(data);
    expect(event).toBe(read.type);
    return read;
  });
}

/** The events between the beginning and the end, without their numbers, which have been looked at. */
function items(chunks: readonly Chunk[], body: Record<string, unknown> = {}): Chunk[] {
  const events = told(new ResponseStream(request(body), meta), chunks);
  expect(events.map(({ sequence_number }) => sequence_number)).toEqual(events.map((_, at) => at));
  expect(events.slice(0, 2).map(({ type }) => type)).toEqual(["response.created", "response.in_progress"]);
  return events.slice(2, -1).map(({ sequence_number: _, ...event }) => event);
}

const final = (chunks: readonly Chunk[], body: Record<string, unknown> = {}) => {
  const last = told(new ResponseStream(request(body), meta), chunks).at(-1);
  return { type: last?.type, response: last?.response as Response };
};

const message = (id: string, status: "in_progress" | "completed" | "incomplete", text?: string) => ({
  ...{ id, type: "message" as const, role: "assistant" as const, status },
  content: text === undefined ? [] : [part(text)],
});
const part = (text: string) => ({ type: "output_text" as const, text, annotations: [], logprobs: [] });
const call = (id: string, args: string, status: "in_progress" | "completed" | "incomplete") => ({
  ...{ id, type: "function_call" as const, call_id: "c1", name: "look" },
  ...{ arguments: args, status },
});

describe("a chat as the events of a response", () => {
  it("are all of OpenAI's", () => {
    expectTypeOf<ResponseEventType>().toExtend<ResponseStreamEvent["type"]>();
  });

  it("tell a text piece by piece and as a whole", () => {
    const at = { item_id: "msg_ab000", output_index: 0, content_index: 0 };
    const expected: ItemEvent[] = [
      { type: "response.output_item.added", output_index: 0, item: message("msg_ab000", "in_progress") },
      { type: "response.content_part.added", ...at, part: part("") },
      { type: "response.output_text.delta", ...at, delta: "Grüß", logprobs: [] },
      { type: "response.output_text.delta", ...at, delta: " Gott", logprobs: [] },
      { type: "response.output_text.done", ...at, text: "Grüß Gott", logprobs: [] },
      { type: "response.content_part.done", ...at, part: part("Grüß Gott") },
      {
        type: "response.output_item.done",
        output_index: 0,
        item: message("msg_ab000", "completed", "Grüß Gott"),
      },
    ];
    const chunks = [
      delta({ role: "assistant", content: "" }),
      delta({ content: "Grüß" }),
      delta({ content: " Gott" }),
      finish("stop"),
      { choices: [], usage: { prompt_tokens: 7, completion_tokens: 5 } },
    ];
    expect(items(chunks)).toEqual(expected);
  });

  it("tell reasoning as it is, close it, then text, then calls that grow side by side", () => {
    const reason = { item_id: "rs_ab000", output_index: 0, content_index: 0 };
    const thought = { type: "reasoning_text" as const, text: "hm" };
    const reasoning = { id: "rs_ab000", type: "reasoning" as const, summary: [] };
    const say = { item_id: "msg_ab001", output_index: 1, content_index: 0 };
    const first = { item_id: "fc_ab002", output_index: 2 };
    const second = { ...call("fc_ab003", "", "in_progress"), call_id: "c2", name: "stop" };
    const added = "response.output_item.added";
    const done = "response.output_item.done";
    const grown = "response.function_call_arguments.delta";
    const whole = "response.function_call_arguments.done";
    const expected: ItemEvent[] = [
      { type: added, output_index: 0, item: { ...reasoning, status: "in_progress", content: [] } },
      { type: "response.content_part.added", ...reason, part: { ...thought, text: "" } },
      { type: "response.reasoning_text.delta", ...reason, delta: "hm" },
      { type: "response.reasoning_text.done", ...reason, text: "hm" },
      { type: "response.content_part.done", ...reason, part: thought },
      { type: done, output_index: 0, item: { ...reasoning, status: "completed", content: [thought] } },
      { type: added, output_index: 1, item: message("msg_ab001", "in_progress") },
      { type: "response.content_part.added", ...say, part: part("") },
      { type: "response.output_text.delta", ...say, delta: "a", logprobs: [] },
      { type: "response.output_text.done", ...say, text: "a", logprobs: [] },
      { type: "response.content_part.done", ...say, part: part("a") },
      { type: done, output_index: 1, item: message("msg_ab001", "completed", "a") },
      { type: added, output_index: 2, item: call("fc_ab002", "", "in_progress") },
      { type: grown, ...first, delta: '{"a":' },
      { type: added, output_index: 3, item: second },
      { type: grown, ...first, delta: "1}" },
      { type: whole, ...first, arguments: '{"a":1}' },
      { type: done, output_index: 2, item: call("fc_ab002", '{"a":1}', "completed") },
      // No client could read nothing as JSON.
      { type: grown, item_id: "fc_ab003", output_index: 3, delta: "{}" },
      { type: whole, item_id: "fc_ab003", output_index: 3, arguments: "{}" },
      { type: done, output_index: 3, item: { ...second, arguments: "{}", status: "completed" } },
    ];
    const chunks = [
      delta({ reasoning_content: "hm", reasoning: "hm" }),
      delta({ content: "a" }),
      callDelta(0, { name: "look", arguments: '{"a":' }, "c1"),
      callDelta(1, { name: "stop", arguments: "" }, "c2"),
      callDelta(0, { arguments: "1}" }),
      finish("tool_calls"),
    ];
    expect(items(chunks)).toEqual(expected);
  });

  it("tell reasoning as a summary where one was asked for", () => {
    const at = { item_id: "rs_ab000", output_index: 0, summary_index: 0 };
    const item = { id: "rs_ab000", type: "reasoning" as const };
    const summary = { type: "summary_text" as const, text: "hm" };
    const expected: ItemEvent[] = [
      {
        type: "response.output_item.added",
        output_index: 0,
        item: { ...item, status: "in_progress", summary: [] },
      },
      { type: "response.reasoning_summary_part.added", ...at, part: { ...summary, text: "" } },
      { type: "response.reasoning_summary_text.delta", ...at, delta: "hm" },
      { type: "response.reasoning_summary_text.done", ...at, text: "hm" },
      { type: "response.reasoning_summary_part.done", ...at, part: summary },
      {
        type: "response.output_item.done",
        output_index: 0,
        item: { ...item, status: "completed", summary: [summary] },
      },
    ];
    expect(items([delta({ reasoning: "hm" })], { reasoning: { summary: "auto" } })).toEqual(expected);
  });

  it("tell a refusal", () => {
    const at = { item_id: "msg_ab000", output_index: 0, content_index: 0 };
    const refusal = { type: "refusal" as const, refusal: "no" };
    const expected: ItemEvent[] = [
      { type: "response.output_item.added", output_index: 0, item: message("msg_ab000", "in_progress") },
      { type: "response.content_part.added", ...at, part: { ...refusal, refusal: "" } },
      { type: "response.refusal.delta", ...at, delta: "no" },
      { type: "response.refusal.done", ...at, refusal: "no" },
      { type: "response.content_part.done", ...at, part: refusal },
      {
        type: "response.output_item.done",
        output_index: 0,
        item: { ...message("msg_ab000", "completed"), content: [refusal] },
      },
    ];
    expect(items([delta({ refusal: "no" }), finish("stop")])).toEqual(expected);
  });

  it("give what is probable only where it was asked for", () => {
    const entry = { token: "a", logprob: -1, bytes: null, top_logprobs: [{ token: "b", logprob: -2 }] };
    const chunks = [
      delta(
        { content: "a" },
        { logprobs: { content: [entry, { token: 5, logprob: 0 }, { token: "x", logprob: Infinity }, null] } },
      ),
    ];
    const read = {
      ...{ token: "a", logprob: -1, bytes: [97] },
      top_logprobs: [{ token: "b", logprob: -2, bytes: [98] }],
    };
    const wanted = items(chunks, { top_logprobs: 1 });
    const at = { item_id: "msg_ab000", output_index: 0, content_index: 0 };
    const logprobs = [read];
    expect(wanted).toContainEqual({ type: "response.output_text.delta", ...at, delta: "a", logprobs });
    expect(wanted).toContainEqual({ type: "response.output_text.done", ...at, text: "a", logprobs });
    expect(items(chunks)).toContainEqual({
      ...{ type: "response.output_text.delta", ...at, delta: "a", logprobs: [] },
    });
  });

  it("begin anew what goes on after something else", () => {
    const chunks = [delta({ content: "a" }), callDelta(0, { name: "look" }, "c1"), delta({ content: "b" })];
    const { output } = final(chunks).response;
    expect(output).toEqual([
      message("msg_ab000", "completed", "a"),
      call("fc_ab001", "{}", "completed"),
      message("msg_ab002", "completed", "b"),
    ]);
  });
});

describe("how a response ends", () => {
  it.each([
    ["length", "max_output_tokens"],
    ["content_filter", "content_filter"],
  ])("%s leaves it incomplete, at the item that was cut off", (reason, told) => {
    const cut = [
      callDelta(0, { name: "look", arguments: "{}" }, "c1"),
      callDelta(1, { name: "look", arguments: '{"a' }, "c2"),
      finish(reason),
    ];
    const { type, response } = final(cut);
    expect(type).toBe("response.incomplete");
    expect(response).toMatchObject({ status: "incomplete", incomplete_details: { reason: told } });
    expect(response.output).toEqual([
      call("fc_ab000", "{}", "completed"),
      { ...call("fc_ab001", '{"a', "incomplete"), call_id: "c2" },
    ]);
  });

  it.each(["stop", "tool_calls", "constructor"])("%s leaves it complete", (reason) => {
    const { type, response } = final([delta({ content: "a" }), finish(reason)]);
    expect(type).toBe("response.completed");
    expect(response).toMatchObject({ status: "completed", incomplete_details: null, error: null });
  });

  it("an answer of nothing is an empty text", () => {
    expect(final([finish("stop")]).response.output).toEqual([message("msg_ab000", "completed", "")]);
  });

  it("a failure tells what had come, and why it ends, in both ways clients read", () => {
    const stream = new ResponseStream(request(), meta);
    const failure = { message: "It broke.", type: "server_error", code: "provider_incomplete" };
    const events = told(stream, [delta({ content: "Gr" })], () => stream.fail(failure));
    expect(events.at(-2)).toMatchObject({
      type: "response.failed",
      response: {
        status: "failed",
        error: { code: "server_error", message: "It broke.", type: "server_error", param: null },
        output: [message("msg_ab000", "incomplete", "Gr")],
        usage: null,
      },
    });
    const error: ResponseStreamEvent = {
      ...{ type: "error", sequence_number: events.length - 1, message: "It broke." },
      ...{ code: "provider_incomplete", param: null },
    };
    expect(events.at(-1)).toEqual({ ...error, error: { ...failure, param: null } });
    expect([stream.event(delta({ content: "x" })), stream.end(usage), stream.fail(failure)]).toEqual([
      [],
      [],
      [],
    ]);
  });

  it("keeps a code that a Response knows", () => {
    const stream = new ResponseStream(request(), meta);
    const failure = { message: "Slow.", type: "rate_limit_error", code: "rate_limit_exceeded" };
    const [, , failed] = told(stream, [], () => stream.fail(failure));
    expect(failed).toMatchObject({ response: { error: { code: "rate_limit_exceeded" } } });
  });

  it("nothing comes after the end", () => {
    const stream = new ResponseStream(request(), meta);
    expect(stream.end(usage)).not.toEqual([]);
    expect([stream.event(delta({ content: "x" })), stream.end(usage)]).toEqual([[], []]);
  });
});

describe("a whole chat completion as a response", () => {
  const completion = {
    choices: [
      {
        index: 0,
        message: {
          role: "assistant",
          content: "a",
          refusal: null,
          reasoning_content: "hm",
          tool_calls: [{ id: "c1", type: "function", function: { name: "look", arguments: "{}" } }],
        },
        logprobs: null,
        finish_reason: "tool_calls",
      },
      { index: 1, message: { content: "another" }, finish_reason: "length" },
    ],
    usage: { completion_tokens_details: { reasoning_tokens: 3 } },
  };
  const schema = { type: "object" };
  const body = {
    ...{
      instructions: "Be kind.",
      metadata: { a: "b" },
      max_output_tokens: 9,
      temperature: 0.5,
      store: true,
    },
    tools: [{ type: "function", name: "look", parameters: schema }],
    tool_choice: { type: "function", name: "look" },
    text: { format: { type: "json_schema", name: "place", schema } },
    ...{ reasoning: { effort: "low" }, user: "u", parallel_tool_calls: false },
  };

  it("has every field OpenAI's type asks for", () => {
    const expected: Omit<Response, "output_text"> = {
      ...{ id: "resp_ab", object: "response", created_at: 1000, model: "m", status: "completed" },
      ...{ access_programs: null, background: false, error: null, incomplete_details: null },
      ...{ instructions: "Be kind.", max_output_tokens: 9, metadata: { a: "b" }, user: "u" },
      output: [
        {
          ...{ id: "rs_ab000", type: "reasoning", status: "completed", summary: [] },
          content: [{ type: "reasoning_text", text: "hm" }],
        },
        message("msg_ab001", "completed", "a"),
        call("fc_ab002", "{}", "completed"),
      ],
      ...{ parallel_tool_calls: false, previous_response_id: null },
      reasoning: { effort: "low", summary: null },
      ...{ temperature: 0.5, top_p: null, top_logprobs: 0, truncation: "disabled" },
      text: { format: { type: "json_schema", name: "place", schema } },
      tool_choice: { type: "function", name: "look" },
      tools: [{ type: "function", name: "look", description: null, parameters: schema, strict: false }],
      usage: {
        ...{ input_tokens: 7, output_tokens: 5, total_tokens: 12 },
        input_tokens_details: { cached_tokens: 2, cache_write_tokens: 0 },
        output_tokens_details: { reasoning_tokens: 3 },
      },
    };
    const { store, ...response } = toResponse(request(body), completion, meta, usage);
    expect(response).toEqual(expected);
    // Whatever was asked for: nothing is kept.
    expect(store).toBe(false);
  });

  it("counts no more reasoning than there is output", () => {
    const told = { usage: { completion_tokens_details: { reasoning_tokens: 99 } } };
    const { usage: counted } = toResponse(request(), told, meta, usage);
    expect(counted).toMatchObject({ output_tokens: 5, output_tokens_details: { reasoning_tokens: 5 } });
  });
});
