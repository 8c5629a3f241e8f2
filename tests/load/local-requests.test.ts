import { readFile } from "node:fs/promises";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { SCRIPTED } from "../support/gguf/index.ts";
import { collect, type LlmUser } from "../support/llm-server.ts";
import { type LocalServer, startLocalServer } from "../support/local-models.ts";

const MODEL = "tiny-scripted";
const BALANCE = 1_000_000_000;
const forever = [{ role: "user" as const, content: "count forever" }];

describe("[LLM-7] local models under load", () => {
  let local: LocalServer;
  let user: LlmUser;
  beforeAll(async () => {
    local = await startLocalServer([MODEL], {
      CDS_LLM_SEQUENCES: "8",
      CDS_REQUESTS_PER_USER_BURST: "10000",
    });
    user = await local.server.user({ balance: BALANCE });
  });
  afterAll(() => local?.[Symbol.asyncDispose]());

  const spent = async (one: LlmUser) => {
    const { balance, held, used } = await local.server.account(one.user_id);
    expect(held).toBe(0);
    const input = used.reduce((sum, row) => sum + row.input_tokens, 0);
    const output = used.reduce((sum, row) => sum + row.output_tokens, 0);
    expect(BALANCE - balance).toBe(input + 4 * output);
    return { calls: used.length, input, output, counted_by: new Set(used.map((row) => row.counted_by)) };
  };

  it("50 requests at once: no error, every answer whole, every token charged", async () => {
    const answers = await Promise.all(
      Array.from({ length: 50 }, async (_, index) => {
        const content = `Request ${index}`;
        const chunks = await collect(
          await user.client.chat.completions.create({
            ...{ model: MODEL, messages: [{ role: "user" as const, content }] },
            ...{ stream: true as const, stream_options: { include_usage: true } },
          }),
        );
        return {
          text: chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""),
          usage: chunks.at(-1)?.usage,
        };
      }),
    );
    expect(new Set(answers.map(({ text }) => text))).toEqual(new Set([SCRIPTED.plain]));
    const told = (name: "prompt_tokens" | "completion_tokens") =>
      answers.reduce((sum, { usage }) => sum + (usage?.[name] ?? Number.NaN), 0);
    expect(await spent(user)).toEqual({
      calls: 50,
      input: told("prompt_tokens"),
      output: told("completion_tokens"),
      counted_by: new Set(["model"]),
    });
  });

  it("a line that is full answers 429 and when to come back; nothing is charged for it", async () => {
    const impatient = await local.server.user({ balance: BALANCE });
    const outcomes = await Promise.all(
      Array.from({ length: 100 }, () =>
        impatient.client.chat.completions
          .create({ model: MODEL, messages: forever, max_tokens: 40 })
          .then(() => "done")
          .catch((error: unknown) => {
            if (!(error instanceof OpenAI.APIError)) throw error;
            expect(error.headers?.get("retry-after")).toMatch(/^\d+$/);
            return `${error.status} ${error.code}`;
          }),
      ),
    );
    // 8 in work and 64 waiting at any moment; those that came later than the first ones ended may be more.
    expect(new Set(outcomes)).toEqual(new Set(["done", "429 engine_overloaded"]));
    const done = outcomes.filter((outcome) => outcome === "done").length;
    expect(await spent(impatient)).toMatchObject({ calls: done, output: done * 40 });
  });

  it("clients that leave in the middle free their sequences and pay for what was made", async () => {
    const leaver = await local.server.user({ balance: BALANCE });
    const received = await Promise.all(
      Array.from({ length: 16 }, async () => {
        const abort = new AbortController();
        let seen = 0;
        try {
          const stream = await leaver.client.chat.completions.create(
            { model: MODEL, messages: forever, stream: true, max_tokens: 4000 },
            { signal: abort.signal },
          );
          for await (const chunk of stream) {
            if ((chunk.choices[0]?.delta.content ?? "") !== "") seen += 1;
            if (seen === 5) abort.abort();
          }
        } catch (error) {
          if (!(error instanceof OpenAI.APIUserAbortError)) throw error;
        }
        return seen;
      }),
    );
    expect(received.every((seen) => seen >= 5)).toBe(true);
    const { output } = await spent(leaver);
    expect(output).toBeGreaterThanOrEqual(16 * 5);
    expect(output).toBeLessThan(16 * 4000);
    const next = await user.client.chat.completions.create({
      model: MODEL,
      messages: [{ role: "user", content: "x" }],
    });
    expect(next.choices[0]?.message.content).toBe(SCRIPTED.plain);
  });

  it("an engine that is killed fails its requests so that clients come back, and the studio lives", async () => {
    const survivor = await local.server.user({ balance: BALANCE });
    const running = survivor.client.chat.completions.create({
      ...{ model: MODEL, messages: forever, stream: true as const, max_tokens: 4000 },
    });
    const stream = await running;
    const iterator = stream[Symbol.asyncIterator]();
    await iterator.next();
    const pids = await enginesOf(process.pid);
    expect(pids.length).toBeGreaterThan(0);
    for (const pid of pids) process.kill(pid, "SIGKILL");
    const rest = async () => {
      while ((await iterator.next()).done !== true);
    };
    await expect(rest()).rejects.toMatchObject({ code: "engine_crashed" });
    const again = await survivor.client.chat.completions.create({
      ...{ model: MODEL, messages: [{ role: "user", content: "x" }] },
    });
    expect(again.choices[0]?.message.content).toBe(SCRIPTED.plain);
    // What was streamed before the crash is charged, and the answer after it.
    expect((await spent(survivor)).calls).toBe(2);
  });
});

/** Children of a process that run an engine. */
async function enginesOf(parent: number): Promise<number[]> {
  const children = (await readFile(`/proc/${parent}/task/${parent}/children`, "utf8")).trim().split(" ");
  const found: number[] = [];
  for (const pid of children.filter((text) => text !== "")) {
    const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    if (command.includes("local/engine/main.ts")) found.push(Number(pid));
  }
  return found;
}
