import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseResponsesRequest, ResponseStream, toResponse } from "./index.ts";

/** Whatever a provider sends, and however it cuts it into chunks. */

const meta = { response_id: "resp_ab", model: "m", created: 1000 };
const usage = { input_tokens: 7, output_tokens: 5, cached_tokens: 2 };
const request = parseResponsesRequest({ model: "m", input: "x" });

type Json = Record<string, unknown>;
interface Item {
  id: string;
  type: string;
  name?: string;
  call_id?: string;
  arguments?: string;
  content?: Json[];
}
interface Told extends Json {
  type: string;
  sequence_number: number;
  output_index?: number;
  item_id?: string;
  delta?: string;
  item?: Item;
}

const chunk = (delta: unknown, rest: Json = {}): Json => ({ choices: [{ index: 0, delta, ...rest }] });
const calls = (...tool_calls: unknown[]) => chunk({ tool_calls });

function run(chunks: readonly Json[], asked = request) {
  const stream = new ResponseStream(asked, meta);
  const frames = [...stream.start(), ...chunks.flatMap((each) => stream.event(each)), ...stream.end(usage)];
  const events = frames.map(({ data }): Told => JSON.parse(data));
  const response = events.at(-1)?.response as Json & { output: Item[] };
  return { events, response };
}

const output = (chunks: readonly Json[]) => run(chunks).response.output;
const named = (items: readonly Item[]) =>
  items.map(({ name, call_id, arguments: args }) => [call_id, name, args]);

/** Each item is begun once, grows by its deltas, and ends as what they add up to; the response has them all. */
function checkOrder(events: readonly Told[], response: { output: Item[] }): void {
  expect(events.map(({ sequence_number }) => sequence_number)).toEqual(events.map((_, at) => at));
  const grown = new Map<string, string>();
  const done: Item[] = [];
  for (const { type, item, item_id = "", delta, output_index, ...event } of events) {
    if (type === "response.output_item.added" && item !== undefined) {
      expect(output_index).toBe(grown.size);
      expect(grown.has(item.id)).toBe(false);
      grown.set(item.id, "");
    }
    if (type.endsWith(".delta")) grown.set(item_id, (grown.get(item_id) ?? "begun by nothing") + delta);
    const whole = event.text ?? event.refusal ?? event.arguments;
    if (type.endsWith(".done") && whole !== undefined) expect(whole).toBe(grown.get(item_id));
    if (type === "response.output_item.done" && item !== undefined) done[output_index ?? -1] = item;
  }
  expect(done).toEqual(response.output);
  expect(done).toHaveLength(grown.size);
}

/** A part of an answer that can be cut anywhere. */
type Run = { kind: "reasoning_content" | "content" | "refusal" | number; text: string };

const text = fc.string({ minLength: 1, maxLength: 12, unit: "binary" });
const run_ = fc.record<Run>({
  kind: fc.oneof(
    fc.constantFrom("reasoning_content" as const, "content" as const, "refusal" as const),
    fc.nat(3),
  ),
  text,
});
/** Where to cut, as parts of the length. */
const cuts = fc.array(fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 4 }), {
  maxLength: 12,
});

function deltasOf(runs: readonly Run[], places: readonly (readonly number[])[]): Json[] {
  const begun = new Set<number>();
  return runs.flatMap(({ kind, text: whole }, at) => {
    const ends = (places[at] ?? []).map((part) => Math.floor(part * whole.length));
    const edges = [0, ...ends.sort((a, b) => a - b), whole.length];
    return edges.slice(1).map((end, piece) => {
      const cut = whole.slice(edges[piece], end);
      if (typeof kind === "string") return chunk({ [kind]: cut });
      const head = begun.has(kind) ? {} : { id: `c${kind}`, type: "function" };
      const name = begun.has(kind) ? {} : { name: `f${kind}` };
      begun.add(kind);
      return calls({ index: kind, ...head, function: { ...name, arguments: cut } });
    });
  });
}

describe("chunks as they come", () => {
  it("any cutting of the same answer gives the same response, whose texts are what was sent", () => {
    fc.assert(
      fc.property(fc.array(run_, { maxLength: 12 }), cuts, (runs, places) => {
        const cut = run(deltasOf(runs, places));
        const uncut = run(deltasOf(runs, []));
        expect(cut.response).toEqual(uncut.response);
        checkOrder(cut.events, cut.response);
        const said = runs.filter(({ kind }) => kind === "content").map((each) => each.text);
        const parts = cut.response.output.flatMap(({ type, content }) => (type === "message" ? content : []));
        expect(parts.map((part) => part?.text ?? "").join("")).toBe(said.join(""));
      }),
    );
  });

  it("a stream says what the whole answer does", () => {
    const whole = fc.record({ reasoning: text, content: text, refusal: text }, { requiredKeys: [] });
    const args = fc.array(text, { maxLength: 4 });
    fc.assert(
      fc.property(whole, args, cuts, ({ reasoning, content, refusal }, callTexts, places) => {
        const said: Run[] = [
          { kind: "reasoning_content", text: reasoning ?? "" },
          { kind: "content", text: content ?? "" },
          { kind: "refusal", text: refusal ?? "" },
          ...callTexts.map((each, at): Run => ({ kind: at, text: each })),
        ];
        const message = {
          ...{ role: "assistant", content: content ?? null, refusal, reasoning_content: reasoning },
          tool_calls: callTexts.map((each, at) => ({
            ...{ id: `c${at}`, type: "function" },
            function: { name: `f${at}`, arguments: each },
          })),
        };
        const completion = { choices: [{ index: 0, message, finish_reason: "stop" }] };
        expect(run(deltasOf(said, places)).response).toEqual(toResponse(request, completion, meta, usage));
      }),
    );
  });

  it("nothing a provider can send breaks the order of events", () => {
    const wild = fc.jsonValue({ maxDepth: 2 });
    const index = fc.oneof(fc.nat(3), wild, fc.constantFrom(-1, 0.5, 1e308, null));
    const optional = { requiredKeys: [] as [] };
    const name = fc.oneof(fc.constantFrom("", "f", "g", "x".repeat(300)), wild);
    const call = fc.record(
      {
        ...{ index, id: name },
        function: fc.oneof(fc.record({ name, arguments: fc.oneof(text, wild) }, optional), wild),
      },
      optional,
    );
    const said = fc.oneof(text, wild);
    const delta = fc.record(
      {
        ...{ content: said, refusal: said, reasoning: said, reasoning_content: said },
        tool_calls: fc.oneof(fc.array(fc.oneof(call, wild), { maxLength: 4 }), wild),
      },
      optional,
    );
    const entry = fc.oneof(
      fc.record({ token: said, logprob: wild, bytes: wild, top_logprobs: wild }, optional),
      wild,
    );
    const choice = fc.record(
      {
        ...{ index, delta: fc.oneof(delta, wild), message: fc.oneof(delta, wild), finish_reason: said },
        logprobs: fc.oneof(fc.record({ content: fc.array(entry, { maxLength: 3 }) }), wild),
      },
      optional,
    );
    const event = fc.record(
      {
        choices: fc.oneof(fc.array(fc.oneof(choice, wild), { maxLength: 3 }), wild),
        usage: fc.oneof(fc.record({ completion_tokens_details: wild }), wild),
      },
      optional,
    );
    const asked = parseResponsesRequest({ model: "m", input: "x", top_logprobs: 2 });
    fc.assert(
      fc.property(fc.array(event, { maxLength: 8 }), (events) => {
        const foreign: Json[] = JSON.parse(JSON.stringify(events));
        const told = run(foreign, asked);
        checkOrder(told.events, told.response);
        for (const each of foreign) expect(toResponse(asked, each, meta, usage).object).toBe("response");
      }),
      { numRuns: 300 },
    );
  });
});

describe("which call a piece belongs to", () => {
  const piece = (args: string, rest: Json = {}, name?: string) => ({
    ...rest,
    function: { ...(name === undefined ? {} : { name }), arguments: args },
  });

  it("goes by the index, by the id where there is none, and by what came last", () => {
    const chunks = [
      calls(piece("1", { id: "a" }, "f")),
      calls(piece("2")),
      calls(piece("3", { id: "b" }, "g")),
      calls(piece("4", { id: "a" })),
      calls(piece("5")),
      calls(piece("6", {}, "h")),
    ];
    expect(named(output(chunks))).toEqual([
      ["a", "f", "1245"],
      ["b", "g", "3"],
      ["call_ab002", "h", "6"],
    ]);
  });

  it("a new name and id under the same number is another call", () => {
    const chunks = [calls(piece("1", { index: 0, id: "a" }, "f"), piece("2", { index: 0, id: "b" }, "f"))];
    expect(named(output(chunks))).toEqual([
      ["a", "f", "1"],
      ["b", "f", "2"],
    ]);
  });

  it("another id without a name is not", () => {
    const chunks = [calls(piece("1", { index: 0, id: "a" }, "f")), calls(piece("2", { index: 0, id: "b" }))];
    expect(named(output(chunks))).toEqual([["a", "f", "12"]]);
  });

  it("waits for a name, and is none without one", () => {
    const chunks = [
      calls(piece("1", { index: 0 }), piece("x", { index: 1 })),
      calls(piece("2", { index: 0 }, "f")),
    ];
    expect(named(output(chunks))).toEqual([["call_ab000", "f", "12"]]);
  });

  it("an id that comes twice, or is too long to be one, is replaced", () => {
    const chunks = ["a", "a", "x".repeat(1000)].map((id, index) => calls(piece("1", { index, id }, "f")));
    expect(named(output(chunks)).map(([id]) => id)).toEqual(["a", "call_ab001", "call_ab002"]);
  });
});

describe("more than an answer can be", () => {
  const call = (index: unknown) => ({ index, function: { name: "f", arguments: "{}" } });

  it("calls beyond 128 are left out, in one chunk and in thousands, whatever their numbers", () => {
    const indices = Array.from({ length: 5000 }, (_, at) => (at % 2 === 0 ? at : -at * 1e300));
    expect(output(indices.map((index) => calls(call(index))))).toHaveLength(128);
    expect(output([calls(...indices.map(call))])).toHaveLength(128);
    // Nor do their pieces end up in a call that is known.
    const late = [...indices.map((index) => calls(call(index))), calls({ function: { arguments: "lost" } })];
    expect(output(late).every((item) => item.arguments === "{}")).toBe(true);
  });

  it("pieces beyond as many calls are left out of a chunk", () => {
    const pieces = Array.from({ length: 5000 }, () => call(0));
    expect(run([calls(...pieces)]).events.length).toBeLessThan(200);
  });

  it("an answer that changes its kind all the time has few items and all its text", () => {
    const chunks = Array.from({ length: 3000 }, (_, at) =>
      chunk(at % 3 === 0 ? { content: "a" } : at % 3 === 1 ? { reasoning: "b" } : { refusal: "c" }),
    );
    const { events, response } = run(chunks);
    checkOrder(events, response);
    expect(response.output.length).toBeLessThan(70);
    const parts = response.output.flatMap(({ content }) => content ?? []);
    const said = parts.map((part) => String(part.text ?? part.refusal)).join("");
    for (const letter of "abc") expect(said.split(letter)).toHaveLength(1001);
  });

  it("probabilities without a text to have them are not kept", () => {
    const asked = parseResponsesRequest({ model: "m", input: "x", top_logprobs: 1 });
    const content = Array.from({ length: 1000 }, () => ({ token: "x", logprob: 0 }));
    const { response } = run(
      Array.from({ length: 20 }, () => chunk({ content: "" }, { logprobs: { content } })),
      asked,
    );
    expect(JSON.stringify(response).split('"logprob"').length).toBeLessThan(100);
  });
});
