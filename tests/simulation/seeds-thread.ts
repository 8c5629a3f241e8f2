import { parentPort } from "node:worker_threads";
import { scenarioOf } from "./scenario.ts";
import { simulate } from "./simulate.ts";

/** Lives through the seeds it is sent, and answers how that went. */
export interface Seeds {
  readonly first: number;
  readonly count: number;
}

export interface SeedsDone {
  readonly failed: readonly number[];
  readonly happened: number;
  readonly counts: Record<string, number>;
}

parentPort?.on("message", async ({ first, count }: Seeds) => {
  const failed: number[] = [];
  const sums: Record<string, number> = {};
  let happened = 0;
  for (let seed = first; seed < first + count; seed += 1) {
    const outcome = await simulate(scenarioOf(seed));
    happened += outcome.happened;
    for (const [name, times] of Object.entries(outcome.counts)) sums[name] = (sums[name] ?? 0) + times;
    if (outcome.violation !== undefined) failed.push(seed);
  }
  parentPort?.postMessage({ failed, happened, counts: sums } satisfies SeedsDone);
});
