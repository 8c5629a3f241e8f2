import { Random } from "./random.ts";
import type { Limits } from "./store-rows.ts";
import type { ScheduledFault } from "./world.ts";

/** What happens from outside; times in virtual ms, amounts in micro-credits. */
export interface Scenario {
  readonly seed: number;
  readonly users: readonly {
    readonly balance: number;
    readonly limit: number | null;
    readonly project: number | null;
  }[];
  /** How fast each worker's clock goes. */
  readonly workers: readonly number[];
  readonly capacity: number;
  readonly limits: Limits;
  readonly lease_ms: number;
  /** Points of priority per minute of waiting: many, so that a wait of seconds decides. */
  readonly aging: number;
  readonly tasks: readonly Dispatch[];
  readonly cancels: readonly { readonly at: number; readonly task: number }[];
  readonly pauses: readonly { readonly at: number; readonly task: number; readonly ms: number }[];
  readonly calls: readonly {
    readonly at: number;
    readonly user: number;
    readonly hold: number;
    readonly cost: number;
  }[];
  readonly grants: readonly { readonly at: number; readonly user: number; readonly balance: number }[];
  readonly faults: readonly ScheduledFault[];
}

interface Dispatch {
  readonly nth: number;
  readonly at: number;
  readonly user: number;
  readonly priority: number;
  readonly max_attempts: number;
  readonly budget: number;
}

const LEASE_MS = 5000;
const AGING = 60;
/** Dispatches, cancellations, grants come within this, ms. */
const LIVELY_MS = 6000;

export function scenarioOf(seed: number): Scenario {
  const random = new Random(seed);
  // One user floods a site with little room: who comes later must not have to wait for all of it.
  const crowded = random.chance(0.3);
  const users = some(random.int(2, 4), () => ({
    balance: random.pick([0, 60, 300, 2000, 2000]),
    limit: random.chance(0.2) ? random.int(20, 400) : null,
    project: random.chance(0.2) ? random.int(20, 400) : null,
  }));
  const workers = some(random.int(2, 3), () => 0.85 + random.next() * 0.3);
  const anyUser = () => random.int(0, users.length - 1);
  const anyTime = () => random.int(0, LIVELY_MS);
  const tasks = some(crowded ? random.int(5, 9) : random.int(3, 7), (nth) => ({
    nth,
    at: random.chance(0.4) ? 0 : anyTime(),
    user: random.chance(crowded ? 0.6 : 0.3) ? 0 : anyUser(),
    priority: random.chance(crowded ? 0.8 : 0.5) ? 5 : random.int(1, 9),
    max_attempts: random.int(1, 3),
    budget: random.int(20, 300),
  }));
  return {
    ...{ seed, users, workers, tasks, lease_ms: LEASE_MS, aging: AGING },
    capacity: crowded ? 1 : random.int(1, 3),
    limits: { per_user: random.int(1, 2), seconds_between: random.pick([0, 0, 0, 1, 3]) },
    cancels: some(random.int(0, 2), () => ({ at: anyTime(), task: random.int(0, tasks.length - 1) })),
    pauses: some(random.int(0, 1), () => ({
      ...{ at: anyTime(), task: random.int(0, tasks.length - 1), ms: random.int(0, 9000) },
    })),
    calls: some(random.int(0, 2), () => ({
      ...{ at: anyTime(), user: anyUser(), hold: random.int(0, 80), cost: random.int(0, 100) },
    })),
    grants: some(random.int(0, 1), () => ({ at: anyTime(), user: anyUser(), balance: random.int(0, 2500) })),
    faults: some(random.int(0, 6), () => faultOf(random, workers.length)),
  };
}

function faultOf(random: Random, workers: number): ScheduledFault {
  // Early steps are claims, later ones are runs; one process more than there are workers speaks for the users.
  const process = random.int(0, random.chance(0.1) ? workers : workers - 1);
  const where = { process, step: random.int(1, random.chance(0.5) ? 20 : 50), after_ms: random.int(0, 60) };
  const kind = random.pick([
    "kill",
    "kill",
    "pause",
    "pause",
    "cut",
    "cut",
    "lose",
    "lose",
    "delay",
    "terminate",
  ] as const);
  // Who speaks for the users does not die: nobody would know what they had asked for.
  if (process === workers || kind === "lose") return { ...where, kind: "lose" };
  if (kind === "kill")
    return { ...where, kind, restart_ms: random.int(200, 12_000), same_id: random.chance(0.5) };
  if (kind === "terminate") {
    return { ...where, kind, grace_ms: random.int(0, 3000), restart_ms: random.int(200, 5000) };
  }
  if (kind === "delay") return { ...where, kind, ms: random.int(200, 6500), answer: random.chance(0.5) };
  // Mostly for about as long as a lease: whoever was thought dead comes back into the middle of what was taken over.
  return { ...where, kind, ms: random.chance(0.6) ? random.int(4800, 8500) : random.int(200, 13_000) };
}

function some<T>(count: number, make: (nth: number) => T): T[] {
  return Array.from({ length: count }, (_, nth) => make(nth));
}
