import { request as httpRequest } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { sql } from "kysely";
import type OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { balanceOf, claimTask, finishTask, getTask, openCall } from "#database";
import { collect, type LlmUser, startLlmServer, type TestLlmServer } from "#tests/support/llm-server.ts";
import { type ScriptedProvider, startScriptedProvider } from "#tests/support/provider.ts";
import { addTask, addUser } from "#tests/support/queue.ts";
import { countRequest, countTokens } from "./calls/tokenizer.ts";

vi.setConfig({ expect: { poll: { timeout: 30_000 } } });
const ask = (content: string) => ({ model: "gpt-test", messages: [{ role: "user" as const, content }] });
/** The defaults: 1 micro-credit per input token, 4 per output token. */
const IN = 1;
const OUT = 4;

describe("money", () => {
  let provider: ScriptedProvider;
  let server: TestLlmServer;

  beforeAll(async () => {
    provider = await startScriptedProvider();
    server = await startLlmServer({ CDS_PROVIDER_IDLE_TIMEOUT_MS: "3000", CDS_MAX_TOKENS: "100000" });
  });
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
    await provider?.close();
  });

  const withKey = async (key: string, balance = 50_000_000): Promise<LlmUser> =>
    server.user({ balance, provider: { base_url: provider.baseUrl, api_key: key } });

  it("[US-3][LLM-4] 200 mixed calls of 4 users: the ledger is the provider's truth to the token", async () => {
    const users = await Promise.all([0, 1, 2, 3].map((index) => withKey(`sk-mixed-key-000${index}`)));
    const kinds = [
      "stream",
      "whole",
      "continuous",
      "retry",
      "refused",
      "cancel-early",
      "cancel-late",
      "broken",
      "no-usage",
      "tools",
    ];
    const jobs = users.flatMap((user, who) =>
      Array.from(
        { length: 50 },
        (_, index) => () => mixed(user, kinds[index % kinds.length] ?? "", `${who}-${index}`),
      ),
    );
    await inParallel(jobs, 16);
    for (const [index, user] of users.entries()) {
      const key = `sk-mixed-key-000${index}`;
      const { balance, held, used } = await server.account(user.user_id);
      expect(held).toBe(0);
      const truth = provider.totals(key);
      const told = used.filter((row) => row.counted_by === "provider");
      expect(told).toHaveLength(truth.requests);
      expect(sum(told, "input_tokens")).toBe(truth.prompt_tokens);
      expect(sum(told, "output_tokens")).toBe(truth.completion_tokens);
      expect(sum(told, "cached_tokens")).toBe(truth.cached_tokens);
      const cost = used.reduce((total, row) => total + row.input_tokens * IN + row.output_tokens * OUT, 0);
      expect(sum(used, "cost_microcredits")).toBe(cost);
      expect(balance).toBe(50_000_000 - cost);
    }
  }, 120_000);

  async function mixed(user: LlmUser, kind: string, id: string): Promise<void> {
    const { completions } = user.client.chat;
    const words = "[[text:some words to be streamed in a while]]";
    // Long enough that the provider cannot have told its figures before it hears of the cancelling.
    const long = `[[text:${"word ".repeat(100)}]]`;
    const usage = { stream_options: { include_usage: true } };
    switch (kind) {
      case "stream":
        await collect(await completions.create({ ...ask(`${id} ${words}`), stream: true, ...usage }));
        return;
      case "whole":
        await completions.create(ask(`${id} ${words}`));
        return;
      case "continuous":
        await collect(
          await completions.create({ ...ask(`${id} ${words} [[usage:continuous]]`), stream: true }),
        );
        return;
      case "retry":
        await collect(await completions.create({ ...ask(`${id} ${words} [[503x1]]`), stream: true }));
        return;
      case "refused":
        await expect(completions.create(ask(`${id} [[400]]`))).rejects.toThrow();
        return;
      case "cancel-early":
      case "cancel-late": {
        const stream = await completions.create({ ...ask(`${id} ${long} [[delay:15]]`), stream: true });
        let seen = 0;
        for await (const _ of stream) {
          seen += 1;
          if (seen === (kind === "cancel-early" ? 2 : 6)) break;
        }
        return;
      }
      case "broken":
        await expect(
          completions.create({ ...ask(`${id} ${words} [[half-chunk]]`), stream: true }).then(collect),
        ).rejects.toThrow();
        return;
      case "no-usage":
        await collect(await completions.create({ ...ask(`${id} ${words} [[usage:none]]`), stream: true }));
        return;
      default:
        await completions.create({ ...ask(`${id} [[file:a.txt]]`), tools: [WRITE_TOOL] });
    }
  }

  it("[US-3] a cancelled stream is charged for what was really streamed, and the provider is told at once", async () => {
    const user = await withKey("sk-cancel-key-0001");
    const words = Array.from({ length: 500 }, (_, index) => `word${index}`).join(" ");
    const body = ask(`[[text:${words}]] [[delay:20]]`);
    const stream = await user.client.chat.completions.create({ ...body, stream: true });
    let seen = "";
    for await (const chunk of stream) {
      seen += chunk.choices[0]?.delta.content ?? "";
      if (seen.length > 40) break;
    }
    const [request] = provider.requestsOf("sk-cancel-key-0001");
    await expect.poll(() => request?.endedAt).toBeDefined();
    // Long before it had said all it had to say.
    expect(request?.aborted).toBe(true);
    expect(request?.streamed.length).toBeLessThan(words.length / 2);
    const { used, held } = await server.account(user.user_id);
    expect(held).toBe(0);
    expect(used).toHaveLength(1);
    expect(used[0]).toMatchObject({ counted_by: "tokenizer", input_tokens: await countRequest(body) });
    const least = await countTokens(seen);
    const most = await countTokens(request?.streamed ?? "");
    expect(used[0]?.output_tokens).toBeGreaterThanOrEqual(least);
    expect(used[0]?.output_tokens).toBeLessThanOrEqual(most);
  });

  it("a client that leaves before the first byte costs nothing and ends the provider's work", async () => {
    const user = await withKey("sk-leave-early-001");
    let asked = 0;
    for (const stream of [true, false]) {
      const abort = new AbortController();
      const call = user.client.chat.completions.create(
        { ...ask("[[first-byte:5000]]"), stream },
        { signal: abort.signal },
      );
      call.catch(() => undefined);
      asked += 1;
      await expect.poll(() => provider.requestsOf("sk-leave-early-001").length).toBe(asked);
      abort.abort();
      await expect(call).rejects.toThrow();
    }
    await expect
      .poll(() => provider.requestsOf("sk-leave-early-001").every(({ aborted }) => aborted))
      .toBe(true);
    expect(await server.account(user.user_id)).toEqual({ balance: 50_000_000, held: 0, used: [] });
  });

  it("a client that leaves after the last word is charged by the provider's figures", async () => {
    const user = await withKey("sk-late-leaver-001");
    provider.script({
      key: "sk-late-leaver-001",
      reply: { text: ["all ", "said"], usage: { prompt_tokens: 77, completion_tokens: 5, cached_tokens: 7 } },
    });
    const stream = await user.client.chat.completions.create({ ...ask("x"), stream: true });
    for await (const chunk of stream) if (chunk.choices[0]?.finish_reason === "stop") break;
    const { used } = await server.account(user.user_id);
    expect(used).toEqual([
      {
        input_tokens: 77,
        output_tokens: 5,
        cached_tokens: 7,
        cost_microcredits: 77 + 20,
        counted_by: "provider",
      },
    ]);
  });

  it("[US-3] an empty account is a 402 in OpenAI's words, and the provider hears nothing", async () => {
    const user = await withKey("sk-poor-key-000001", 0);
    for (const stream of [true, false]) {
      await expect(user.client.chat.completions.create({ ...ask("hello"), stream })).rejects.toMatchObject({
        status: 402,
        code: "insufficient_quota",
        type: "insufficient_quota",
      });
    }
    expect(provider.requestsOf("sk-poor-key-000001")).toHaveLength(0);
    expect(await server.account(user.user_id)).toEqual({ balance: 0, held: 0, used: [] });
  });

  it("what is left is used up: fewer output tokens are asked for, down to 64", async () => {
    const user = await withKey("sk-scarce-key-0001", 1000);
    await user.client.chat.completions.create(ask("[[text:short]]"));
    const [request] = provider.requestsOf("sk-scarce-key-0001");
    expect(request?.body.max_tokens).toBeGreaterThanOrEqual(64);
    expect(request?.body.max_tokens).toBeLessThan(250);
    const poorer = await withKey("sk-scarce-key-0002", 260);
    await expect(poorer.client.chat.completions.create(ask("x"))).rejects.toMatchObject({ status: 402 });
  });

  it("[US-3] fifty calls at once on a balance for a few: nothing below zero, nothing unpaid", async () => {
    const user = await withKey("sk-race-key-000001", 3000);
    const results = await Promise.allSettled(
      Array.from({ length: 50 }, (_, index) =>
        user.client.chat.completions.create({ ...ask(`${index} [[text:a b c d e]]`), max_tokens: 100 }),
      ),
    );
    const refused = results.filter((result) => result.status === "rejected");
    for (const { reason } of refused) expect(reason).toMatchObject({ status: 402 });
    expect(refused.length).toBeGreaterThan(0);
    const { balance, held, used } = await server.account(user.user_id);
    expect(held).toBe(0);
    expect(balance).toBe(3000 - sum(used, "cost_microcredits"));
    expect(used).toHaveLength(50 - refused.length);
  });

  it("a price of its own per model, and one of nothing for an account with nothing", async () => {
    await server.db
      .insertInto("models")
      .values([
        { name: "dear", input_cost_per_million: 10_000_000, output_cost_per_million: 30_000_000 },
        { name: "free", input_cost_per_million: 0, output_cost_per_million: 0 },
      ])
      .execute();
    const user = await withKey("sk-priced-key-0001");
    provider.script({
      key: "sk-priced-key-0001",
      reply: { text: "x", usage: { prompt_tokens: 3, completion_tokens: 2, cached_tokens: 0 } },
    });
    await user.client.chat.completions.create({ ...ask("x"), model: "dear" });
    expect((await server.account(user.user_id)).used[0]?.cost_microcredits).toBe(90);
    const broke = await withKey("sk-broke-key-00001", 0);
    await broke.client.chat.completions.create({ ...ask("x"), model: "free" });
    expect((await server.account(broke.user_id)).used).toHaveLength(1);
  });

  it("[MU-4] a task token pays from its task's budget, and dies with the task", async () => {
    const user = await withKey("sk-task-key-000001", 1_000_000);
    const { id } = await addTask(server.db, user.user_id, { budget: 100_000, model: "gpt-test" });
    const claim = { worker_id: "test", capacity: 10, per_user: 1, seconds_between: 0, lease_ms: 60_000 };
    const task = await claimTask(server.db, claim);
    expect(task?.id).toBe(id);
    const issue = (attempt: number) =>
      server.taskTokens.issue({ task_id: id, user_id: user.user_id, attempt, ttlSeconds: 60 });
    const client = server.client(await issue(task?.attempt ?? 0));
    await client.chat.completions.create(ask("[[text:one two]]"));
    const { used, held } = await server.account(user.user_id);
    const spent = sum(used, "cost_microcredits");
    expect(spent).toBeGreaterThan(0);
    expect(held).toBe(100_000 - spent);
    expect((await getTask(server.db, id)).budget_left).toBe(100_000 - spent);
    // The account has more, but the task's budget is its ceiling.
    await expect(client.chat.completions.create(ask("x".repeat(450_000)))).rejects.toMatchObject({
      status: 402,
    });
    await expect(server.client(await issue(7)).chat.completions.create(ask("x"))).rejects.toMatchObject({
      status: 401,
    });
    await finishTask(server.db, { task_id: id, attempt: task?.attempt ?? 0, state: "completed" });
    await expect(client.chat.completions.create(ask("x"))).rejects.toMatchObject({ status: 401 });
    const after = await server.account(user.user_id);
    expect(after).toMatchObject({ held: 0, balance: 1_000_000 - spent });
  });

  it("[MU-8] a reader that stalls pauses the provider, in bounded memory, and is cut off in the end", async () => {
    const user = await withKey("sk-stalled-key-001");
    const total = 60_000_000;
    const before = process.memoryUsage();
    const reader = stalledReader(server.url, user.api_key, { ...ask(`[[bytes:${total}]]`), stream: true });
    await expect.poll(() => provider.requestsOf("sk-stalled-key-001").length).toBe(1);
    const [request] = provider.requestsOf("sk-stalled-key-001");
    // Until it stands still: everything on the way is full.
    let sent = -1;
    for (let still = 0; still < 10; await sleep(50)) {
      const now = request?.streamed.length ?? 0;
      still = now > 0 && now === sent ? still + 1 : 0;
      sent = now;
    }
    // Sockets and streams hold some on each of three hops; far from the whole.
    expect(sent).toBeLessThan(16_000_000);
    const grown = process.memoryUsage().arrayBuffers - before.arrayBuffers;
    expect(grown).toBeLessThan(8_000_000);
    await expect.poll(() => request?.endedAt).toBeDefined();
    reader.resume();
    await reader.closed;
    expect(request?.streamed.length).toBeLessThan(16_000_000);
    const { held } = await server.account(user.user_id);
    expect(held).toBe(0);
    expect(request?.aborted).toBe(true);
  }, 120_000);

  it("[MU-11] a server that stops ends calls in flight with an error and charges each", async () => {
    await using other = await startLlmServer({ CDS_SHUTDOWN_GRACE_MS: "100" });
    const user = await other.user({
      provider: { base_url: provider.baseUrl, api_key: "sk-stop-key-000001" },
    });
    const words = Array.from({ length: 300 }, () => "word").join(" ");
    const stream = await user.client.chat.completions.create({
      ...ask(`[[text:${words}]] [[delay:20]]`),
      stream: true,
    });
    const chunks = stream[Symbol.asyncIterator]();
    for (let read = 0; read < 3; read += 1) expect((await chunks.next()).done).toBe(false);
    const reading = (async () => {
      while (!(await chunks.next()).done);
    })();
    reading.catch(() => undefined);
    await other.stop();
    await expect(reading).rejects.toThrow("shutting down");
    const { held, used } = await other.account(user.user_id);
    expect(held).toBe(0);
    expect(used).toHaveLength(1);
    await expect(user.client.chat.completions.create(ask("x"))).rejects.toThrow();
  });

  it("[US-3] what a killed process left open is given back at the next start", async () => {
    let user_id = "";
    const env = { INSTANCE_ID: "fixed-name" };
    await using next = await startLlmServer(env, async (db) => {
      user_id = await addUser(db, 1000);
      await openCall(db, { call_id: "llm_left", user_id, model: "m", instance_id: "fixed-name", hold: 400 });
      await sql`UPDATE llm_calls SET created_at = now() - interval '1 hour'`.execute(db);
      await openCall(db, { call_id: "llm_alive", user_id, model: "m", instance_id: "another", hold: 300 });
    });
    expect(await balanceOf(next.db, user_id)).toEqual({ balance_microcredits: 1000, held_microcredits: 300 });
  });

  it("a server that stops lets a short call finish", async () => {
    await using other = await startLlmServer();
    const user = await other.user({
      provider: { base_url: provider.baseUrl, api_key: "sk-stop-key-000002" },
    });
    const call = user.client.chat.completions.create(ask("[[first-byte:400]] [[text:in time]]"));
    await expect.poll(() => provider.requestsOf("sk-stop-key-000002").length).toBe(1);
    await Promise.all([other.stop(), call]);
    expect((await call).choices[0]?.message.content).toBe("in time");
  });
});

const WRITE_TOOL: OpenAI.ChatCompletionTool = {
  type: "function",
  function: {
    name: "write",
    parameters: { type: "object", properties: { filePath: { type: "string" }, content: { type: "string" } } },
  },
};

function sum<K extends string>(rows: Record<K, unknown>[], name: K): number {
  return rows.reduce((total, row) => total + Number(row[name]), 0);
}

async function inParallel(jobs: (() => Promise<void>)[], width: number): Promise<void> {
  const queue = jobs.values();
  const worker = async () => {
    for (const job of queue) await job();
  };
  await Promise.all(Array.from({ length: width }, worker));
}

/** A client that reads the head of its answer and then nothing more, until told to. */
function stalledReader(url: string, bearer: string, body: unknown) {
  const request = httpRequest(`${url}/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${bearer}` },
  });
  request.end(JSON.stringify(body));
  // Unread bytes hide the end of the connection: it is seen only by who reads again.
  const { promise: told, resolve: resume } = Promise.withResolvers<void>();
  const closed = new Promise<void>((resolve) => {
    request.on("response", (response) => {
      response.pause();
      response.on("error", () => undefined);
      response.on("close", resolve);
      void told.then(() => response.resume());
    });
    request.on("error", () => resolve());
  });
  return { closed, resume };
}
