import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { merged } from "./merged.ts";
import type { EngineBatch } from "./types.ts";

async function* stream(words: string[], input: number, onEnd?: () => void): AsyncGenerator<EngineBatch> {
  try {
    for (const [index, text] of words.entries()) {
      await sleep(index);
      const usage = { input_tokens: input, cached_tokens: 0, output_tokens: index + 1 };
      yield { events: [{ type: "text", choice: index % 2, text }], usage };
    }
  } finally {
    onEnd?.();
  }
}

describe("several prompts as one stream", () => {
  it("numbers the choices through and adds up the figures", async () => {
    const texts = new Map<number, string>();
    let last: EngineBatch["usage"] | undefined;
    for await (const { events, usage } of merged([stream(["a", "b"], 3), stream(["c", "d", "e"], 4)], 2)) {
      last = usage;
      for (const event of events) {
        if (event.type === "text") texts.set(event.choice, (texts.get(event.choice) ?? "") + event.text);
      }
    }
    expect([...texts].sort()).toEqual([
      [0, "a"],
      [1, "b"],
      [2, "ce"],
      [3, "d"],
    ]);
    expect(last).toEqual({ input_tokens: 7, cached_tokens: 0, output_tokens: 5 });
  });

  it("ends every stream when its reader leaves", async () => {
    let ended = 0;
    const words = Array.from({ length: 50 }, (_, index) => String(index));
    for await (const _ of merged([stream(words, 1, () => ended++), stream(words, 1, () => ended++)])) break;
    await expect.poll(() => ended).toBe(2);
  });

  it("fails with the first that fails", async () => {
    async function* broken(): AsyncGenerator<EngineBatch> {
      yield { events: [], usage: { input_tokens: 1, cached_tokens: 0, output_tokens: 0 } };
      throw new Error("the engine is gone");
    }
    const read = async () => {
      for await (const _ of merged([stream(["a", "b", "c"], 1), broken()]));
    };
    await expect(read()).rejects.toThrow("the engine is gone");
  });
});
