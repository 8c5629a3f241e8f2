import { setTimeout as sleep } from "node:timers/promises";
import type { Sandboxes } from "#sandbox";
import { run } from "#sandbox/testing/harness.ts";
import { besiege } from "../../tests/support/hostile.ts";
import { median, percentile, printTable } from "../support.ts";

const ATTACKERS = 50;
/** Alone and among the attackers in turn, so that both meet the same machine. */
const BLOCKS = 2;
const ROUNDS = 150;
/** Users do not begin a program in the instant the last one ended. */
const PAUSE_MS = 50;
const OTHERS = 20;
/** By then the attackers have had what anybody gets at once. */
const BEGUN_MS = 60_000;
const SETTLE_MS = 12_000;

/** Short programs of users who take turns: ms of each. */
async function others(sandboxes: Sandboxes, times: number[]): Promise<void> {
  for (let round = 0; round < ROUNDS; round += 1) {
    await sleep(PAUSE_MS);
    const begun = performance.now();
    const { code } = await run(sandboxes, ["true"], { owner: `other-${round % OTHERS}` });
    times.push(performance.now() - begun);
    if (code !== 0) throw new Error(`ended with ${code}`);
  }
}

/** What other users' runs take while fifty programs do their worst. */
export async function benchCrowd(sandboxes: Sandboxes): Promise<void> {
  const alone: number[] = [];
  const among: number[] = [];
  let started = 0;
  let limited = 0;
  for (let block = 0; block < BLOCKS; block += 1) {
    await others(sandboxes, alone);
    const siege = besiege(sandboxes, ATTACKERS, "bench");
    try {
      for (const late = performance.now() + BEGUN_MS; siege.started < ATTACKERS && performance.now() < late; )
        await sleep(100);
      await sleep(SETTLE_MS);
      await others(sandboxes, among);
    } finally {
      await siege.stop();
    }
    started += siege.started;
    limited += siege.limited;
  }
  const worst = percentile(alone, 0.99);
  console.log(
    `\nothers' runs beside ${ATTACKERS} hostile programs (${limited} of ${started} hit a limit, ${alone.length} runs each)`,
  );
  printTable(
    Object.entries({ alone, among }).map(([name, times]) => ({
      name,
      "p50 ms": median(times),
      "p99 ms": percentile(times, 0.99),
      "worst ms": Math.max(...times),
      "p99, of alone": percentile(times, 0.99) / worst,
    })),
  );
}
