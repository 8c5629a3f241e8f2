import { expect } from "vitest";
import type { Runner } from "#agents";
import type { Reply } from "#tests/support/provider-replies.ts";
import type { RunnerFeature, RunnerScenario } from "./features.ts";
import type { Ended, House } from "./house.ts";

/** What a model, its provider or a budget can do to a task. */

const WRITE: Reply = {
  text: "I write. ",
  toolCalls: [{ name: "write", arguments: { filePath: "left.txt", content: "left\n" } }],
};
const WORDS = "Some words that are never heard to their end.";

/** A task that does something, and whose second question to the model goes wrong. */
async function failed(house: House, runner: Runner, second: Reply, code: string): Promise<Ended> {
  const ended = await house.run(runner, { script: [[WRITE, second]] });
  expect(ended.task).toMatchObject({ state: "failed", change_id: null, attempt: 1, error: { code } });
  expect(ended.task.error?.message).toBeTruthy();
  expect(JSON.stringify(ended.task.error)).not.toMatch(/127\.0\.0\.1|sk-/);
  expect(ended.change).toEqual({});
  return ended;
}

export const failures: {
  readonly [F in RunnerFeature &
    ("brokenOff" | "silence" | "cutOff" | "comesBack" | "ceiling")]: RunnerScenario;
} = {
  brokenOff: async (house, runner) => {
    for (const fault of ["half-chunk", "error-event", "no-done"] as const) {
      const { requests } = await failed(house, runner, { fault, text: WORDS }, "ProviderError");
      // What was heard of the answer is paid for, so it is not asked again.
      expect(requests).toHaveLength(2);
    }
  },

  silence: async (house, runner) => {
    await failed(house, runner, { fault: "hang-stream", text: WORDS }, "ProviderTimeout");
  },

  cutOff: async (house, runner) => {
    const { task } = await failed(house, runner, { text: WORDS, finishReason: "length" }, "RunFailed");
    expect(task.error?.message).toContain("cut off");
    expect(task.error?.hint).toContain("CDS_MAX_TOKENS");
  },

  comesBack: async (house, runner) => {
    const fails: Reply = { fault: "500" };
    let asked = 0;
    const { task, requests, change } = await house.run(runner, {
      script: () => {
        asked += 1;
        if (asked === 1 || asked === 3) return fails;
        return asked === 2 ? WRITE : { text: "Done." };
      },
    });
    expect(task).toMatchObject({ state: "completed", error: null, attempt: 1 });
    expect(requests).toHaveLength(4);
    expect(change).toEqual({ "left.txt": "left\n" });
  },

  ceiling: async (house, runner) => {
    // Each answer costs more than a fifth of it.
    const usage = { prompt_tokens: 10, completion_tokens: 2000, cached_tokens: 0 };
    const budget = 60_000;
    let turn = 0;
    const script = (): Reply => {
      turn += 1;
      const args = { filePath: `left${turn}.txt`, content: "left\n" };
      return { usage, toolCalls: [{ name: "write", arguments: args }] };
    };
    const { task, requests } = await house.run(runner, { script, budget });
    expect(task).toMatchObject({ state: "failed", change_id: null });
    expect(["InsufficientBalance", "BudgetExceeded"]).toContain(task.error?.code);
    expect(requests.length).toBeGreaterThan(1);
    const { db } = house;
    const rows = await db
      .selectFrom("tokens_used")
      .select("cost_microcredits")
      .where("task_id", "=", task.id)
      .execute();
    expect(rows.length).toBe(requests.length);
    expect(rows.reduce((sum, row) => sum + row.cost_microcredits, 0)).toBeLessThanOrEqual(budget);
  },
};
