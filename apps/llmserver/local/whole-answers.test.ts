import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type LocalServer, startLocalServer } from "#tests/support/local-models.ts";

const START = 10_000_000;

describe("whole answers of local models", () => {
  let local: LocalServer;
  beforeAll(async () => {
    local = await startLocalServer(["tiny-scripted", "tiny-bert"], { CDS_LLM_CONTEXT: "1024" });
  });
  afterAll(() => local?.[Symbol.asyncDispose]());

  it("as many embeddings as one may ask for come, however many numbers that makes", async () => {
    const user = await local.server.user();
    const { data } = await user.client.embeddings.create({
      model: "tiny-bert",
      input: Array(2048).fill("Hallo"),
      encoding_format: "float",
    });
    expect(data).toHaveLength(2048);
  });

  it("[LLM-4] an answer whose process dies is none: it costs nothing", async () => {
    const user = await local.server.user({ balance: START });
    const answer = user.client.chat.completions.create({
      model: "tiny-scripted",
      messages: [{ role: "user", content: "count forever" }],
      max_tokens: 900,
    });
    const failed = expect(answer).rejects.toMatchObject({ status: 503, code: "engine_crashed" });
    const working = async () =>
      (await local.server.llm.models.status()).models.find((model) => model.sessions > 0);
    await expect.poll(working, { timeout: 30_000 }).toBeDefined();
    // Some of it is there by now.
    await sleep(100);
    process.kill((await working())?.pid ?? Number.NaN, "SIGKILL");
    await failed;
    expect(await local.server.account(user.user_id)).toEqual({ balance: START, held: 0, used: [] });
  });
});
