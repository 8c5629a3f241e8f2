import { describe, expect, it } from "vitest";
import type { TaskEvent } from "#schemas";
import { emptyLog, foldEvent } from "./task-log.ts";

const at = "2026-11-20T10:00:00.000Z";
const event = (seq: number, body: object) => ({ task_id: "tsk_1", seq, at, ...body }) as TaskEvent;
const fold = (...events: TaskEvent[]) => events.reduce(foldEvent, emptyLog);

describe("foldEvent", () => {
  it("joins text deltas, keeps tools where they began and ignores what it has seen", () => {
    const log = fold(
      event(1, { type: "state", state: "pending" }),
      event(2, { type: "state", state: "running", attempt: 1 }),
      event(3, { type: "text", delta: "Grü" }),
      event(4, { type: "text", delta: "ße" }),
      event(4, { type: "text", delta: "ße" }),
      event(5, { type: "tool", call_id: "c1", name: "write", status: "pending" }),
      event(6, { type: "text", delta: "fertig" }),
      event(7, { type: "tool", call_id: "c1", name: "", status: "completed", output: "ok" }),
    );
    expect(log.blocks).toEqual([
      { kind: "text", key: 3, text: "Grüße" },
      { kind: "tool", key: 5, callId: "c1", name: "write", title: "", status: "completed", output: "ok" },
      { kind: "text", key: 6, text: "fertig" },
    ]);
    expect(log.state).toBe("running");
  });

  it("starts afresh with a new attempt", () => {
    const log = fold(
      event(1, { type: "state", state: "running", attempt: 1 }),
      event(2, { type: "text", delta: "half a sen" }),
      event(3, { type: "state", state: "running", attempt: 2 }),
    );
    expect(log.blocks).toEqual([]);
    expect(log.attempt).toBe(2);
  });

  it("shows what the studio says of the run, where it was said", () => {
    const log = fold(
      event(1, { type: "state", state: "running", attempt: 1 }),
      event(2, { type: "state", state: "running", note: "Waits for 2 other starts." }),
      event(3, { type: "text", delta: "done" }),
    );
    expect(log.blocks).toEqual([
      { kind: "note", key: 2, text: "Waits for 2 other starts." },
      { kind: "text", key: 3, text: "done" },
    ]);
  });

  it("ends with the change, the usage and the error of the last event", () => {
    const usage = { input_tokens: 3, output_tokens: 2, cost_microcredits: 11 };
    const log = fold(
      event(1, { type: "usage", ...usage }),
      event(2, { type: "change", change_id: "chg_1", files: 2 }),
      event(3, { type: "error", code: "RunFailed", message: "m", hint: "h" }),
      event(4, { type: "done", state: "failed", error: { code: "RunFailed", message: "m" } }),
    );
    expect(log).toMatchObject({ done: true, state: "failed", changeId: "chg_1", usage, lastSeq: 4 });
    expect(log.error).toEqual({ code: "RunFailed", message: "m" });
  });
});
