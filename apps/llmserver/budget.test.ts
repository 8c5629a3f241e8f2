import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { setPrice, setUserBudget, userBudget } from "#database";
import { type LlmUser, startLlmServer, type TestLlmServer } from "#tests/support/llm-server.ts";
import { type ScriptedProvider, startScriptedProvider } from "#tests/support/provider.ts";

const ask = (content: string) => ({ model: "gpt-test", messages: [{ role: "user" as const, content }] });

describe("budgets and prices of model calls", () => {
  let provider: ScriptedProvider;
  let server: TestLlmServer;

  beforeAll(async () => {
    provider = await startScriptedProvider();
    server = await startLlmServer({ CDS_MAX_TOKENS: "100000" });
  });
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
    await provider?.close();
  });

  const withKey = async (key: string, limit?: number): Promise<LlmUser> => {
    const user = await server.user({
      balance: 50_000_000,
      provider: { base_url: provider.baseUrl, api_key: key },
    });
    if (limit !== undefined) await setUserBudget(server.db, user.user_id, { limit, period: "month" });
    return user;
  };

  it("[US-3] cached input costs its own price", async () => {
    await setPrice(server.db, { model: "caching", input: 10_000_000, cached: 1_000_000, output: 30_000_000 });
    const user = await withKey("sk-cached-key-0001");
    const usage = { prompt_tokens: 100, completion_tokens: 2, cached_tokens: 90 };
    provider.script({ key: "sk-cached-key-0001", reply: { text: "x", usage } });
    await user.client.chat.completions.create({ ...ask("x"), model: "caching" });
    const { used, held } = await server.account(user.user_id);
    expect(held).toBe(0);
    // 10 at 10, 90 at 1, 2 at 30.
    expect(used).toMatchObject([{ cached_tokens: 90, cost_microcredits: 250 }]);
  });

  it("[US-3] a budget that is used up is a 402, and the provider hears nothing", async () => {
    const user = await withKey("sk-budget-key-0001", 100);
    for (const stream of [true, false]) {
      await expect(user.client.chat.completions.create({ ...ask("x"), stream })).rejects.toMatchObject({
        status: 402,
        code: "budget_exceeded",
        type: "insufficient_quota",
      });
    }
    expect(provider.requestsOf("sk-budget-key-0001")).toHaveLength(0);
    expect(await server.account(user.user_id)).toMatchObject({ balance: 50_000_000, held: 0, used: [] });
  });

  it("what a budget leaves is used up: fewer output tokens are asked for", async () => {
    const user = await withKey("sk-budget-key-0002", 1000);
    await user.client.chat.completions.create(ask("[[text:short]]"));
    const [request] = provider.requestsOf("sk-budget-key-0002");
    expect(request?.body.max_tokens).toBeGreaterThanOrEqual(64);
    expect(request?.body.max_tokens).toBeLessThan(250);
  });

  it("[US-3] fifty calls at once on a budget for a few: never more than the budget", async () => {
    const user = await withKey("sk-budget-key-0003", 3000);
    const results = await Promise.allSettled(
      Array.from({ length: 50 }, (_, index) =>
        user.client.chat.completions.create({ ...ask(`${index} [[text:a b c d e]]`), max_tokens: 100 }),
      ),
    );
    const refused = results.filter((result) => result.status === "rejected");
    for (const { reason } of refused) expect(reason).toMatchObject({ status: 402, code: "budget_exceeded" });
    expect(refused.length).toBeGreaterThan(0);
    const { used } = await server.account(user.user_id);
    const spent = used.reduce((sum, { cost_microcredits }) => sum + cost_microcredits, 0);
    expect(spent).toBeLessThanOrEqual(3000);
    expect(await userBudget(server.db, user.user_id)).toMatchObject({ spent, held: 0 });
  });
});
