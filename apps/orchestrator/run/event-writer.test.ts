import { afterEach, describe, expect, it, vi } from "vitest";
import type { TaskEventBody } from "#schemas";
import { EventWriter, type EventWriterOptions } from "./event-writer.ts";

function writer(options: Partial<EventWriterOptions> = {}) {
  const batches: TaskEventBody[][] = [];
  const broken: string[] = [];
  const pressure: boolean[] = [];
  const events = new EventWriter({
    append: async (bodies) => {
      batches.push(bodies);
      return true;
    },
    onBroken: (why) => broken.push(why),
    onPressure: (high) => pressure.push(high),
    maxChars: 10_000_000,
    ...options,
  });
  return { events, batches, broken, pressure };
}

const text = (delta: string): TaskEventBody => ({ type: "text", delta });
const tool = (status: "running" | "completed", output: string): TaskEventBody => ({
  type: "tool",
  call_id: "c",
  name: "bash",
  status,
  output,
});

afterEach(() => void vi.useRealTimers());

describe("event writer", () => {
  it("[MU-8] joins neighbouring text, keeps the latest of a tool's progress, and loses nothing else", async () => {
    const { events, batches } = writer();
    for (const word of ["a", "b", "c"]) events.push(text(word));
    events.push({ type: "thought", delta: "hm" });
    events.push(tool("running", "1"));
    events.push(tool("running", "1\n2"));
    events.push(tool("completed", "1\n2\n3"));
    events.push(text("d"));
    await events.flush();
    expect(batches).toEqual([
      [
        text("abc"),
        { type: "thought", delta: "hm" },
        tool("running", "1\n2"),
        tool("completed", "1\n2\n3"),
        text("d"),
      ],
    ]);
  });

  it("stores within about 50 ms by itself, one batch after the other, in order", async () => {
    vi.useFakeTimers();
    let open = 0;
    let batches = 0;
    const seen: string[] = [];
    const { events } = writer({
      append: async (bodies) => {
        expect(++open).toBe(1);
        batches += 1;
        await new Promise((resolve) => setTimeout(resolve, 20));
        open -= 1;
        for (const body of bodies) if (body.type === "text") seen.push(body.delta);
        return true;
      },
    });
    for (let round = 0; round < 20; round += 1) {
      events.push(text(`${round},`));
      await vi.advanceTimersByTimeAsync(10);
      // What came more than 50 ms and one batch (20 ms) ago is stored.
      if (round >= 7) expect(seen.join("")).toContain(`${round - 7},`);
    }
    await vi.advanceTimersByTimeAsync(70);
    expect(seen.join("")).toBe(Array.from({ length: 20 }, (_, round) => `${round},`).join(""));
    expect(batches).toBeGreaterThan(2);
    expect(batches).toBeLessThan(20);
  });

  it("[MU-8] asks for a pause when storing is slow, and bounds a task's events", async () => {
    const { events, batches, pressure } = writer({ maxChars: 3_000_000 });
    for (let index = 0; index < 80; index += 1) events.push(text("x".repeat(50_000)));
    expect(pressure).toEqual([true]);
    await events.flush();
    expect(pressure).toEqual([true, false]);
    const all = batches.flat();
    expect(JSON.stringify(all).length).toBeLessThan(3_200_000);
    expect(all.at(-1)).toMatchObject({ type: "state", note: expect.stringContaining("too long") });
    events.push(text("more"));
    await events.flush();
    expect(batches.flat()).toHaveLength(all.length);
  });

  it("says once that the task is lost or storing fails, and stores nothing after", async () => {
    const lost = writer({ append: async () => false });
    lost.events.push(text("a"));
    await lost.events.flush();
    lost.events.push(text("b"));
    await lost.events.flush();
    expect(lost.broken).toEqual(["lost"]);
    const failed = writer({ append: () => Promise.reject(new Error("database away")) });
    failed.events.push(text("a"));
    await failed.events.flush();
    expect(failed.broken).toEqual(["failed"]);
  });
});
