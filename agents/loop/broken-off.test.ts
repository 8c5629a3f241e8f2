import { setImmediate as tick } from "node:timers/promises";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AppError } from "#schemas";
import type { Said } from "../testing/scripted-model.ts";
import { expectWhole, setUpTurn, statuses } from "../testing/turns.ts";
import { runTurn, type TurnInput } from "./index.ts";

describe("a turn that fails", () => {
  it("throws the model's error, and leaves nothing half-said in the session", async () => {
    const broken = new AppError("ProviderError", "The provider failed.");
    const turn = setUpTurn([
      { text: "I will", calls: [{ name: "read", arguments: { filePath: "a.txt" } }], error: broken },
    ]);
    await expect(turn.run()).rejects.toBe(broken);
    expect(turn.messages).toHaveLength(2);
    expect(statuses(turn.events)).toEqual(["read pending", "read failed"]);
  });

  it("takes an answer that ends without a reason for a failure", async () => {
    const turn = setUpTurn([{ text: "Done", finish: null }]);
    await expect(turn.run()).rejects.toMatchObject({
      code: "ProviderError",
      message: expect.stringContaining("before it was complete"),
    });
    expectWhole(turn.messages);
  });

  it("ends when the sandbox does not work, with every call answered", async () => {
    const turn = setUpTurn([
      {
        calls: [
          { name: "bash", arguments: { command: "ls" } },
          { name: "list", arguments: {} },
        ],
      },
    ]);
    turn.host.onExec = async () => {
      throw new AppError("EngineUnavailable", "There is no sandbox.");
    };
    await expect(turn.run()).rejects.toMatchObject({ code: "EngineUnavailable" });
    expectWhole(turn.messages);
    expect(statuses(turn.events).slice(-2)).toEqual(["bash failed", "list failed"]);
  });

  it("is bounded against a model that never stops calling or talking", async () => {
    const many = setUpTurn([
      { calls: Array.from({ length: 1000 }, () => ({ name: "list", arguments: {} })) },
    ]);
    await expect(many.run()).rejects.toMatchObject({ code: "ProviderError" });
    const long = setUpTurn([{ text: Array.from({ length: 100 }, () => "x".repeat(100_000)) }]);
    await expect(long.run()).rejects.toMatchObject({ code: "ProviderError" });
  });
});

describe("a cancelled turn", () => {
  const hanging = () => new Promise<never>(() => undefined);
  const reason = new AppError("Cancelled", "The task was cancelled.");

  it.each<[string, readonly Said[], Partial<TurnInput>]>([
    ["at the gate", [], { beforeStep: hanging }],
    ["while the model is silent", [{ text: "I", hang: true }], {}],
    ["in the middle of a call's arguments", [{ calls: [{ name: "read", arguments: {} }], hang: true }], {}],
    [
      "while a tool that heeds nothing runs",
      [
        {
          calls: [
            { name: "bash", arguments: { command: "x" } },
            { name: "list", arguments: {} },
          ],
        },
      ],
      {},
    ],
  ])("ends %s, and its session is fit to go on", async (_name, script, more) => {
    const turn = setUpTurn(script, more);
    turn.host.onExec = hanging;
    const ended = turn.run();
    for (let round = 0; round < 20; round += 1) await tick();
    turn.cancel.abort(reason);
    await expect(ended).rejects.toBe(reason);
    expectWhole(turn.messages);
    const last = statuses(turn.events)
      .filter((status) => status.startsWith("list"))
      .at(-1);
    expect([undefined, "list failed"]).toContain(last);
  });

  it("ends at once when it was cancelled before", async () => {
    const turn = setUpTurn([]);
    turn.cancel.abort(reason);
    await expect(turn.run()).rejects.toBe(reason);
    expect(turn.model.asked).toHaveLength(0);
  });

  it("hangs at no moment, and goes on afterwards", async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(40), async (moment) => {
        let moments = 0;
        const cancel = new AbortController();
        const note = () => {
          moments += 1;
          if (moments === moment) cancel.abort(reason);
        };
        const script = (_: unknown, step: number): Said =>
          step % 3 === 2
            ? { text: "Done." }
            : {
                text: "So. ",
                calls: [
                  { name: "read", arguments: { filePath: "a.txt" } },
                  { name: "bash", arguments: { command: `${step}` } },
                ],
              };
        const turn = setUpTurn(script, {
          signal: cancel.signal,
          onEvent: note,
          beforeStep: async () => note(),
        });
        turn.host.onExec = async () => {
          note();
          return { output: "ok" };
        };
        const first = await turn.run().then(
          (end) => end.reason,
          (error: unknown) => error,
        );
        expect([reason, "end_turn"]).toContain(first);
        expectWhole(turn.messages);
        turn.messages.push({ role: "user", content: "Go on." });
        const again = await runTurn({ ...turn.input, signal: new AbortController().signal });
        expect(again.reason).toBe("end_turn");
        expectWhole(turn.messages);
      }),
      { numRuns: 80 },
    );
  });
});
