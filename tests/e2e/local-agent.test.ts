import { copyFile, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cachedModel } from "../support/gguf/index.ts";
import { startTestStudio, type TestStudio } from "../support/studio.ts";
import { ended, eventsOf } from "../support/tasks.ts";

const MODEL = "tiny-scripted";

describe("[LLM-2] a coding agent on a model of this machine", () => {
  let studio: TestStudio;
  let modelsDir: string;
  beforeAll(async () => {
    modelsDir = await mkdtemp(join(tmpdir(), "cds-agent-models-"));
    await copyFile(await cachedModel(MODEL), join(modelsDir, `${MODEL}.gguf`));
    studio = await startTestStudio({ CDS_MODELS_DIR: modelsDir, CDS_LLM_CONTEXT: "32768" });
  }, 120_000);
  afterAll(async () => {
    await studio?.[Symbol.asyncDispose]();
    await rm(modelsDir, { recursive: true, force: true });
  }, 60_000);

  it("opencode speaks with it as with any other; its own tokenizer counts", {
    timeout: 240_000,
  }, async () => {
    const user = await studio.user("ada");
    const { models } = await user.client.call("llm.models", {});
    expect(models).toContainEqual(expect.objectContaining({ id: MODEL, source: "local" }));
    const project = await user.client.call("project.create", { name: "Lokal", template: "sample" });
    const { task_id } = await user.client.call("agent.dispatch", {
      ...{ agent: "CodeAgent", project_id: project.id, prompt: "Say hello", model: MODEL },
    });
    // The model's script knows no coding: whatever becomes of the task, it was answered and paid for.
    const task = await ended(user, task_id, 200_000);
    const events = await eventsOf(studio.url, user, task_id);
    expect(task.error?.code).not.toBe("ProviderError");
    expect(events.map(({ type }) => type)).toContain("done");
    const { calls } = await user.client.call("usage.calls", { limit: 50 });
    expect(calls.length).toBeGreaterThan(0);
    expect(new Set(calls.map(({ counted_by }) => counted_by))).toEqual(new Set(["model"]));
    for (const call of calls) expect(call).toMatchObject({ task_id, model: MODEL });
    const cost = calls.reduce((sum, call) => sum + call.cost_microcredits, 0);
    expect(task.usage.cost_microcredits).toBe(cost);
  });
});
