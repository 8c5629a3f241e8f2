import type { Scenario } from "./scenario.ts";
import { type Options, type Outcome, simulate } from "./simulate.ts";

const LISTS = ["faults", "tasks", "cancels", "pauses", "calls", "grants"] as const;

/** A violation without the numbers in it. */
export function kindOf({ violation }: Outcome): string | undefined {
  return violation?.replaceAll(/\d+/g, "N");
}

/** Leave out of a failing scenario, one after the other, whatever it fails without. */
export async function shrink(scenario: Scenario, options: Options = {}): Promise<Scenario> {
  const kind = kindOf(await simulate(scenario, options));
  let least = scenario;
  for (let left = true; left; ) {
    left = false;
    for (const list of LISTS) {
      for (let nth = least[list].length - 1; nth >= 0; nth -= 1) {
        const without = { ...least, [list]: least[list].filter((_, other) => other !== nth) };
        if (kindOf(await simulate(without, options)) !== kind) continue;
        least = without;
        left = true;
      }
    }
  }
  return least;
}

/** A failing seed looked at closely: its shortest schedule, what happened in it, and how to see that again. */
export async function explain(scenario: Scenario, options: Options = {}): Promise<string> {
  const least = await shrink(scenario, options);
  const { violation, trace } = await simulate(least, { ...options, traced: true });
  const { seed, faults, tasks, cancels, pauses, calls, grants } = least;
  return [
    `seed ${seed}: ${violation}`,
    `the shortest schedule that shows it: ${JSON.stringify({ tasks, faults, cancels, pauses, calls, grants })}`,
    ...trace,
    `whole, again: CDS_SEED=${seed} npm test -- tests/simulation`,
  ].join("\n");
}
