import { afterEach, describe, expect, it } from "vitest";
import { metricsRegistry } from "#platform/metrics.ts";
import { observeCall, observeMemory } from "./metrics.ts";
import { parseChatRequest } from "./requests/chat-request.ts";

const usage = { input_tokens: 5, output_tokens: 7, cached_tokens: 0, counted_by: "provider" as const };
const endpoint = "/v1/chat/completions";
const ask = (model: string) => parseChatRequest({ model, messages: [{ role: "user", content: "x" }] }, 10);

describe("[LLM-6] metrics of the model server", () => {
  afterEach(() => metricsRegistry.resetMetrics());

  it("count calls by how they ended, their tokens, and those in work", async () => {
    const options = { endpoint, source: "server" as const, listed: ["listed"] };
    const good = observeCall({ ...options, request: ask("listed") });
    const bad = observeCall({ ...options, request: ask("listed") });
    expect(await metricsRegistry.metrics()).toContain('llm_active_sessions{source="server"} 2');
    good.used(usage);
    good.finished();
    good[Symbol.dispose]();
    bad.used({ ...usage, output_tokens: 2 });
    bad[Symbol.dispose]();
    const text = await metricsRegistry.metrics();
    const labels = `endpoint="${endpoint}",model="listed",source="server"`;
    expect(text).toContain(`llm_requests_total{${labels},status="ok"} 1`);
    expect(text).toContain(`llm_requests_total{${labels},status="failed"} 1`);
    expect(text).toContain('llm_tokens_generated{model="listed",source="server"} 9');
    expect(text).toContain(`llm_inference_duration_seconds_count{${labels}} 2`);
    expect(text).toContain('llm_active_sessions{source="server"} 0');
  });

  it("never take a name that callers choose freely", async () => {
    for (let index = 0; index < 100; index += 1) {
      using _own = observeCall({ endpoint, source: "user", listed: [], request: ask(`own-${index}`) });
      using _any = observeCall({ endpoint, source: "server", listed: [], request: ask(`any-${index}`) });
    }
    const text = await metricsRegistry.metrics();
    expect(text).not.toMatch(/own-|any-/);
    expect(text).toContain(
      `llm_requests_total{endpoint="${endpoint}",model="other",source="user",status="failed"} 100`,
    );
  });

  it("show the memory of the models that are loaded, and no other", async () => {
    observeMemory(
      new Map([
        ["a", 5],
        ["b", 6],
      ]),
    );
    observeMemory(new Map([["b", 7]]));
    const text = await metricsRegistry.metrics();
    expect(text).toContain('llm_model_memory_bytes{model="b"} 7');
    expect(text).not.toContain('llm_model_memory_bytes{model="a"}');
  });
});
