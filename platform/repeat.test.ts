import { setTimeout as sleep } from "node:timers/promises";
import { pino } from "pino";
import { expect, it, vi } from "vitest";
import { repeat } from "./repeat.ts";

vi.setConfig({ expect: { poll: { timeout: 30_000 } } });

it("repeats a chore, also after a failure, and waits for the last round when it is closed", async () => {
  const lines: string[] = [];
  const log = pino({ level: "warn" }, { write: (line: string) => lines.push(line) });
  let rounds = 0;
  let atWork = false;
  const chore = repeat(log, "sweeping", 5, async () => {
    rounds += 1;
    if (rounds === 1) throw new Error("broom lost");
    atWork = true;
    await sleep(20);
    atWork = false;
  });
  await expect.poll(() => rounds).toBeGreaterThan(1);
  await chore.close();
  expect(atWork).toBe(false);
  const before = rounds;
  await sleep(30);
  expect(rounds).toBe(before);
  expect(lines).toHaveLength(1);
  expect(lines[0]).toContain("broom lost");
});
