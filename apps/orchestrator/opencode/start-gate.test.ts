import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { StartGate } from "./start-gate.ts";

const never = new AbortController().signal;

describe("cold-start gate", () => {
  it("[MU-1] lets so many in, the rest in order, and tells them how many are before them", async () => {
    const gate = new StartGate(2);
    const heard: string[] = [];
    const entered: number[] = [];
    const leave = await Promise.all([gate.enter(never, () => undefined), gate.enter(never, () => undefined)]);
    const rest = [1, 2, 3].map(async (id) => {
      const out = await gate.enter(never, (ahead) => heard.push(`${id}:${ahead}`));
      entered.push(id);
      return out;
    });
    await turn();
    expect(heard).toEqual(["1:0", "2:1", "3:2"]);
    expect(gate.busy).toBe(5);
    leave[0]();
    leave[0]();
    await turn();
    expect(entered).toEqual([1]);
    expect(heard.slice(3)).toEqual(["2:0", "3:1"]);
    leave[1]();
    (await rest[0])?.();
    await turn();
    expect(entered).toEqual([1, 2, 3]);
    for (const out of await Promise.all(rest)) out();
    expect(gate.busy).toBe(0);
  });

  it("forgets who gives up waiting", async () => {
    const gate = new StartGate(1);
    const leave = await gate.enter(never, () => undefined);
    const abort = new AbortController();
    const waiting = gate.enter(abort.signal, () => undefined);
    const after = gate.enter(never, () => undefined);
    abort.abort(new Error("gone"));
    await expect(waiting).rejects.toThrow("gone");
    leave();
    (await after)();
    expect(gate.busy).toBe(0);
    await expect(gate.enter(abort.signal, () => undefined)).rejects.toThrow("gone");
  });
});
