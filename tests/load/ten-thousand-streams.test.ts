import OpenAI from "openai";
import { describe, expect, it } from "vitest";
import { countRequest, countTokens } from "#apps/llmserver/calls/tokenizer.ts";
import { type LlmUser, startLlmServer, type TestLlmServer } from "../support/llm-server.ts";
import { type ScriptedProvider, startScriptedProvider } from "../support/provider.ts";
import type { RecordedRequest, Reply } from "../support/provider-replies.ts";

const STREAMS = 10_000;
const AT_ONCE = 100;
const USERS = 50;
const BALANCE = 1_000_000_000;
const WORDS = ["Ein ", "Amt ", "ist ", "ein ", "Amt, ", "und ", "Straßen ", "sind ", "naß. "];

/** How a stream goes; the provider's own figures, or our tokenizer over what it said, are the truth in each. */
type Kind = { reply: Reply; whole?: boolean; cancel?: boolean };
const KINDS: readonly Kind[] = [
  { reply: { text: WORDS } },
  { reply: { text: WORDS } },
  { reply: { text: WORDS }, whole: true },
  { reply: { text: WORDS, toolCalls: [{ name: "look", arguments: { path: "a" } }] } },
  { reply: { text: WORDS, usage: "continuous" } },
  { reply: { text: WORDS, usage: "none" } },
  { reply: { text: WORDS, usage: "wrong" } },
  { reply: { text: WORDS, usage: "continuous", fault: "half-chunk" } },
  { reply: { text: WORDS, usage: "continuous", fault: "error-event" } },
  { reply: { text: WORDS, usage: "continuous", fault: "no-done" } },
  { reply: { text: WORDS, usage: "none", fault: "no-done" } },
  { reply: { text: WORDS, usage: "continuous", fault: "hang-stream" }, cancel: true },
  { reply: { text: WORDS, usage: "none", fault: "hang-stream" }, cancel: true },
  { reply: { fault: "400" } },
];
/** Words a broken stream gives before it breaks. */
const HALF = Math.ceil(WORDS.length / 2);

/** Deterministic by seed (mulberry32). */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

async function call({ client }: LlmUser, index: number, kind: Kind): Promise<void> {
  const abort = new AbortController();
  const body = {
    model: "scripted",
    messages: [{ role: "user" as const, content: `kind ${KINDS.indexOf(kind)} of call ${index}` }],
  };
  try {
    if (kind.whole === true) {
      await client.chat.completions.create(body);
      return;
    }
    const stream = await client.chat.completions.create({ ...body, stream: true }, { signal: abort.signal });
    let seen = 0;
    for await (const chunk of stream) {
      if (typeof chunk.choices[0]?.delta.content === "string" && chunk.choices[0].delta.content !== "")
        seen += 1;
      if (kind.cancel === true && seen === HALF) abort.abort();
    }
  } catch (error) {
    // Broken on purpose, or cancelled by ourselves.
    if (!(error instanceof OpenAI.APIError)) throw error;
  }
}

/** What the provider says it used; where it says nothing, what it streamed, counted. */
async function truthOf(record: RecordedRequest): Promise<[input: number, output: number, cached: number]> {
  const told = record.reported;
  if (told !== undefined) return [told.prompt_tokens, told.completion_tokens, told.cached_tokens];
  if (record.streamed === "") return [0, 0, 0];
  const messages = (record.body.messages ?? []) as Parameters<typeof countRequest>[0]["messages"];
  return [await countRequest({ messages, tools: null }), await countTokens(record.streamed), 0];
}

async function check(server: TestLlmServer, provider: ScriptedProvider, user: LlmUser, key: string) {
  const { balance, held, used } = await server.account(user.user_id);
  const truth = [0, 0, 0];
  for (const record of provider.requestsOf(key)) {
    for (const [index, value] of (await truthOf(record)).entries())
      truth[index] = (truth[index] ?? 0) + value;
  }
  const sum = (field: "input_tokens" | "output_tokens" | "cached_tokens") =>
    used.reduce((total, row) => total + row[field], 0);
  expect([sum("input_tokens"), sum("output_tokens"), sum("cached_tokens")]).toEqual(truth);
  expect(held).toBe(0);
  // A micro-credit per input token and four per output token: nothing is rounded.
  expect(BALANCE - balance).toBe(sum("input_tokens") + 4 * sum("output_tokens"));
}

describe("[US-3] money", () => {
  it("10,000 completed, broken and cancelled streams are charged to the token", {
    timeout: 600_000,
  }, async () => {
    await using provider = await startScriptedProvider();
    for (const [index, { reply }] of KINDS.entries()) provider.script({ prompt: `kind ${index} of`, reply });
    await using server = await startLlmServer({
      LOG_LEVEL: "silent",
      CDS_PROVIDER_ATTEMPTS: "1",
      CDS_REQUESTS_PER_USER: "1000000",
      CDS_REQUESTS_PER_USER_BURST: "1000000",
      CDS_LLM_REQUESTS_PER_MINUTE: "0",
      CDS_LLM_TOKENS_PER_MINUTE: "0",
      CDS_LLM_KEY_REQUESTS_PER_MINUTE: "0",
      CDS_LLM_KEY_TOKENS_PER_MINUTE: "0",
    });
    const keys = Array.from({ length: USERS }, (_, index) => `sk-stream-${String(index).padStart(4, "0")}`);
    const users = await Promise.all(
      keys.map((api_key) =>
        server.user({ balance: BALANCE, provider: { base_url: provider.baseUrl, api_key } }),
      ),
    );
    const draw = random(20_261_128);
    let issued = 0;
    // A provider that fails five times in a row gets a pause, and calls are refused without reaching it: go on.
    const worker = async () => {
      while (provider.requests.length < STREAMS) {
        const index = issued++;
        const user = users[index % USERS];
        const kind = KINDS[Math.floor(draw() * KINDS.length)];
        if (user !== undefined && kind !== undefined) await call(user, index, kind);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    expect(provider.requests.length).toBeGreaterThanOrEqual(STREAMS);
    for (const [index, user] of users.entries()) await check(server, provider, user, keys[index] ?? "");
  });
});
