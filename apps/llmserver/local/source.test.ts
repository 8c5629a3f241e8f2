import { afterAll, beforeAll, expect, it } from "vitest";
import type { LlmUser } from "#tests/support/llm-server.ts";
import { type LocalServer, startLocalServer } from "#tests/support/local-models.ts";

let local: LocalServer;
let user: LlmUser;
beforeAll(async () => {
  local = await startLocalServer();
  user = await local.server.user();
});
afterAll(() => local?.[Symbol.asyncDispose]());

it("what is far beyond the context is refused without being counted, and costs nothing", async () => {
  const { client } = user;
  const refused = { status: 400, code: "context_length_exceeded" };
  const tools = Array.from({ length: 128 }, (_, index) => ({
    type: "function" as const,
    function: { name: `f${index}`, description: "x".repeat(20_000), parameters: { type: "object" } },
  }));
  const messages = [{ role: "user" as const, content: "x" }];
  await expect(
    client.chat.completions.create({ model: "tiny-scripted", messages, tools }),
  ).rejects.toMatchObject({ ...refused, param: "messages" });
  await expect(
    client.completions.create({ model: "tiny-scripted", prompt: "x ".repeat(500_000) }),
  ).rejects.toMatchObject({ ...refused, param: "prompt" });
  await expect(
    client.embeddings.create({ model: "tiny-bert", input: ["x", "x ".repeat(500_000)] }),
  ).rejects.toMatchObject({ ...refused, param: "input[1]" });
  expect((await local.server.account(user.user_id)).used).toEqual([]);
});
