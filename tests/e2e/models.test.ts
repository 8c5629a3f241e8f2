import { readFile } from "node:fs/promises";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cachedModel, SCRIPTED } from "../support/gguf/index.ts";
import { startHub, type TestHub } from "../support/hub.ts";
import { signIn, startTestStudio, type TestStudio } from "../support/studio.ts";

const MODEL = "tiny-scripted";

interface AdminUser {
  id: string;
  balance_microcredits: number;
}

/** As an administrator and a user go about it, on the whole product, over its one origin. */
describe("[LLM-3] from a hub to a charged answer", () => {
  let studio: TestStudio;
  let hub: TestHub;
  const admin = async <T>(method: string, path: string, body?: unknown): Promise<T> => {
    const response = await fetch(`${studio.url}${path}`, {
      method,
      headers: {
        authorization: `Bearer ${studio.admin.session.access_token}`,
        ...(body === undefined ? {} : { "content-type": "application/json" }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${response.status} ${text}`);
    return (text === "" ? undefined : JSON.parse(text)) as T;
  };

  beforeAll(async () => {
    hub = await startHub({ [`${MODEL}.gguf`]: await readFile(await cachedModel(MODEL)) });
    studio = await startTestStudio({ HF_ENDPOINT: hub.url });
  }, 120_000);
  afterAll(async () => {
    await studio?.[Symbol.asyncDispose]();
    await hub?.[Symbol.asyncDispose]();
  }, 60_000);

  it("[TE-2] [LLM-5] admin: download, load, create a user, set the balance; user: ask, be charged, see it", async () => {
    const huggingface_url = `${hub.url}/acme/tiny/resolve/main/${MODEL}.gguf`;
    const { download_id } = await admin<{ download_id: string }>("POST", "/admin/download", {
      huggingface_url,
    });
    const state = async () => {
      const { downloads } = await admin<{ downloads: { id: string; state: string }[] }>(
        "GET",
        "/admin/downloads",
      );
      return downloads.find(({ id }) => id === download_id)?.state;
    };
    await expect.poll(state).toBe("done");
    await admin("POST", "/admin/load", { model_id: MODEL, config: { context_size: 1024, sequences: 2 } });
    const { models } = await admin<{ models: { name: string; is_loaded: boolean }[] }>(
      "GET",
      "/admin/models",
    );
    expect(models).toContainEqual(expect.objectContaining({ name: MODEL, is_loaded: true, kind: "chat" }));
    await admin("PUT", `/admin/models/${MODEL}/price`, {
      ...{ input_per_million: 2_000_000, output_per_million: 3_000_000 },
    });
    const password = "a user's long password";
    const created = await admin<AdminUser>("POST", "/admin/users", {
      ...{ username: "ada", password, role: "developer" },
    });
    await admin("PUT", `/admin/users/${created.id}/balance`, { balance_microcredits: 1_000_000 });
    const ada = await signIn(studio.url, "ada", password, "login");
    const client = new OpenAI({
      ...{ apiKey: ada.session.access_token, baseURL: `${studio.url}/v1`, maxRetries: 0 },
    });
    const answer = await client.chat.completions.create({
      ...{ model: MODEL, messages: [{ role: "user", content: "Hallo" }] },
    });
    expect(answer.choices[0]?.message.content).toBe(SCRIPTED.plain);
    const { prompt_tokens = 0, completion_tokens = 0 } = answer.usage ?? {};
    const cost = 2 * prompt_tokens + 3 * completion_tokens;
    expect(await ada.client.call("billing.balance", {})).toEqual({
      balance_microcredits: 1_000_000 - cost,
      held_microcredits: 0,
    });
    const { calls } = await ada.client.call("usage.calls", {});
    expect(calls).toMatchObject([
      {
        ...{ model: MODEL, endpoint: "/v1/chat/completions", counted_by: "model" },
        ...{ input_tokens: prompt_tokens, output_tokens: completion_tokens, cost_microcredits: cost },
      },
    ]);
    const metrics = await (await fetch(`${studio.url}/metrics`)).text();
    expect(metrics).toContain(
      `llm_requests_total{endpoint="/v1/chat/completions",model="${MODEL}",source="local",status="ok"} 1`,
    );
    expect(metrics).toMatch(new RegExp(`llm_model_memory_bytes\\{model="${MODEL}"\\} [1-9]\\d{7}`));
    expect(metrics).toContain(`llm_tokens_generated{model="${MODEL}",source="local"} ${completion_tokens}`);
    expect(metrics).toContain('llm_active_sessions{source="local"} 0');
    expect(metrics).toContain("llm_inference_duration_seconds_count");
  });

  it("[LLM-5] is nobody's but an administrator's", async () => {
    const user = await studio.user("grace");
    const paths: [string, string][] = [
      ["POST", "/admin/load"],
      ["POST", "/admin/unload"],
      ["POST", "/admin/download"],
      ["GET", "/admin/status"],
      ["GET", "/admin/models"],
      ["GET", "/admin/downloads"],
      ["DELETE", `/admin/models/${MODEL}`],
    ];
    for (const [method, path] of paths) {
      const ask = (headers: Record<string, string>) =>
        fetch(`${studio.url}${path}`, {
          method,
          headers: { ...headers, "content-type": "application/json" },
          ...(method === "POST" ? { body: JSON.stringify({ model_id: MODEL }) } : {}),
        });
      expect([path, (await ask({})).status]).toEqual([path, 401]);
      const token = `Bearer ${user.session.access_token}`;
      expect([path, (await ask({ authorization: token })).status]).toEqual([path, 403]);
    }
  });
});
