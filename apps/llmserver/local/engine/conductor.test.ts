import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { Conductor } from "./conductor.ts";

const players = (count: number) => Array.from({ length: count }, (_, sequenceId) => ({ sequenceId }));
type Player = { sequenceId: number };
/** As good as never: what happens then is not what the test is about. */
const PATIENT = { stragglerMs: 600_000 };

/** Turns as they are given, by sequence. */
function watch(conductor: Conductor) {
  const given: [number, number][] = [];
  return {
    given,
    ask: (player: Player, wanted: number) =>
      conductor.turn(player, wanted).then((tokens) => void given.push([player.sequenceId, tokens])),
  };
}

describe("sequences that decode in step", () => {
  it("begin together when the last is ready", async () => {
    const conductor = new Conductor({ batchSize: 256, sequences: 3, ...PATIENT });
    const [a, b, c] = players(3) as [Player, Player, Player];
    for (const player of [a, b, c]) conductor.join(player);
    const { given, ask } = watch(conductor);
    const turns = [ask(c, 1), ask(a, 1)];
    await sleep(0);
    expect(given).toEqual([]);
    await Promise.all([...turns, ask(b, 1)]);
    expect(given.toSorted()).toEqual([
      [0, 1],
      [1, 1],
      [2, 1],
    ]);
  });

  it("nobody begins while another still decodes, and who leaves is not waited for", async () => {
    const conductor = new Conductor({ batchSize: 256, sequences: 2 });
    const [a, b] = players(2) as [Player, Player];
    conductor.join(a);
    const { given, ask } = watch(conductor);
    await ask(a, 1);
    conductor.join(b);
    const second = ask(b, 1);
    await sleep(30);
    expect(given).toEqual([[0, 1]]);
    conductor.leave(a);
    await second;
    expect(given).toEqual([
      [0, 1],
      [1, 1],
    ]);
  });

  it("one that is busy elsewhere does not hold the others up for long", async () => {
    const conductor = new Conductor({ batchSize: 256, sequences: 2 });
    const [a, b] = players(2) as [Player, Player];
    conductor.join(a);
    conductor.join(b);
    const { given, ask } = watch(conductor);
    await ask(a, 1);
    expect(given).toEqual([[0, 1]]);
  });

  it("a turn given up is no turn", async () => {
    const conductor = new Conductor({ batchSize: 256, sequences: 2, ...PATIENT });
    const [a, b] = players(2) as [Player, Player];
    conductor.join(a);
    conductor.join(b);
    const { given, ask } = watch(conductor);
    const waiting = ask(a, 5);
    conductor.abandon(a);
    await waiting;
    expect(given).toEqual([[0, 0]]);
  });

  it("prompts share a step, short ones whole; every generating sequence has its token", async () => {
    const conductor = new Conductor({ batchSize: 256, sequences: 4, ...PATIENT });
    const [a, b, c, d] = players(4) as [Player, Player, Player, Player];
    for (const player of [a, b, c, d]) conductor.join(player);
    const { given, ask } = watch(conductor);
    await Promise.all([ask(a, 1), ask(b, 4000), ask(c, 6), ask(d, 4000)]);
    const granted = Object.fromEntries(given);
    expect(granted[0]).toBe(1);
    expect(granted[2]).toBe(6);
    expect(granted[1]).toBeGreaterThanOrEqual(16);
    expect(given.reduce((sum, [, tokens]) => sum + tokens, 0)).toBeLessThanOrEqual(256);
  });

  it("a prompt that had no room is the first one of the next step", async () => {
    const conductor = new Conductor({ batchSize: 20, sequences: 3, ...PATIENT });
    const [a, b] = players(2) as [Player, Player];
    conductor.join(a);
    conductor.join(b);
    const { given, ask } = watch(conductor);
    const turns = [ask(a, 4000), ask(b, 4000)];
    await turns[0];
    expect(given).toHaveLength(1);
    conductor.done(a);
    void ask(a, 3980);
    await turns[1];
    expect(given.map(([id]) => id)).toEqual([0, 1]);
  });
});
