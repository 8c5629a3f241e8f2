import { closeCall } from "./attempt.ts";
import { Audited } from "./audited.ts";
import type { Counts } from "./judge.ts";
import type { Scenario } from "./scenario.ts";
import { Store } from "./store.ts";
import { type Site, Worker } from "./worker.ts";
import { Process, World } from "./world.ts";

/** Virtual time in which every task has to come to an end, ms. */
const DEADLINE_MS = 10 * 60_000;
/** Until the calls of processes that are gone may be swept: their grace, and the time to count as gone. */
const ALL_GONE_MS = 76_000;
const SWEEP_GRACE_MS = 60_000;
const PENDING_LIMIT = 4;
/** How often a user asks again when no answer came. */
const PATIENCE_MS = 700;

export interface Outcome {
  /** What was not as it must be; undefined when everything was. */
  readonly violation: string | undefined;
  /** Things that happened. */
  readonly happened: number;
  /** Virtual ms it took. */
  readonly lasted: number;
  readonly counts: Counts;
  readonly trace: readonly string[];
}

export interface Options {
  /** A store in which something was taken away; default: the store as it is. */
  readonly store?: () => Store;
  /** Keep what happened, line by line. */
  readonly traced?: boolean;
}

/** Live through one scenario, judged at every step and at its end. The same scenario always goes the same way. */
export async function simulate(scenario: Scenario, options: Options = {}): Promise<Outcome> {
  const world = new World(scenario.seed, options.traced === true);
  const store = options.store?.() ?? new Store();
  const database = new Audited(store, world, scenario);
  const site: Site = { world, database, scenario };
  const workers = scenario.workers.map((rate, index) => new Worker(index, rate, site));
  database.onQueue = () => {
    for (const worker of workers) worker.ring();
  };
  database.onCancel = (task_id) => {
    for (const worker of workers) worker.tell(task_id, (attempt) => attempt.cancel());
  };
  database.onPause = (task_id, paused) => {
    for (const worker of workers) worker.tell(task_id, (attempt) => attempt.pause(paused));
  };
  database.judge.somebodySince = (moment, task) =>
    workers.some((worker) => worker.process.healthySince <= moment && !worker.has(task.id));
  const last = dispatchAll(site, workers);
  await world.run(() => world.now >= last && database.quiet, DEADLINE_MS);
  if (world.violation === undefined) leaveAll(database, world);
  const { violation, happened, now, trace } = world;
  return { violation, happened, lasted: now, counts: database.judge.counts, trace: trace ?? [] };
}

/** What comes from outside. @returns when the last of it comes, ms. */
function dispatchAll({ world, database, scenario }: Site, workers: readonly Worker[]): number {
  const users = new Process(scenario.workers.length, world, { rate: 1, faults: scenario.faults });
  let last = 0;
  const at = (when: number, run: () => void) => {
    last = Math.max(last, when);
    world.at(when, run);
  };
  for (const { nth, at: when, user, priority, max_attempts, budget } of scenario.tasks) {
    const task = {
      ...{ id: `t${nth}`, user_id: `u${user}`, project_id: `p${user}`, idempotency_key: `k${nth}` },
      ...{ priority, max_attempts, budget, pendingLimit: PENDING_LIMIT },
    };
    at(when, () => insist(users, `dispatch t${nth}`, () => database.enqueue(task)));
  }
  for (const { at: when, task } of scenario.cancels) {
    at(when, () => insist(users, `cancel t${task}`, () => database.cancel(`t${task}`)));
  }
  for (const { at: when, task, ms } of scenario.pauses) {
    const set = (paused: boolean, then?: () => void) =>
      insist(users, `pause t${task} ${paused}`, () => database.setPaused(`t${task}`, paused), then);
    at(when, () => set(true, () => users.after(ms, () => set(false))));
  }
  for (const [nth, { at: when, user, balance }] of scenario.grants.entries()) {
    at(when, () =>
      insist(users, `grant u${user}`, () => database.setBalance(`u${user}`, balance, `g${nth}`)),
    );
  }
  for (const [nth, { at: when, user, hold, cost }] of scenario.calls.entries()) {
    const process = workers[nth % workers.length]?.process ?? users;
    const call = { id: `f${nth}`, user_id: `u${user}`, instance_id: `w${process.index}.1`, hold };
    at(when, () =>
      insist(
        process,
        `open ${call.id}`,
        () => database.open(call),
        (answer) => {
          if (answer === "ok") closeCall(call.id, cost, process, { world, database, scenario });
        },
      ),
    );
  }
  return last;
}

/** Ask the same again until an answer comes. */
function insist<T>(
  process: Process,
  name: string,
  what: () => T,
  done: (answer: T) => void = () => undefined,
): void {
  process.ask(name, what, done, () => process.after(PATIENCE_MS, () => insist(process, name, what, done)));
}

/** Every process ends; much later a new one sweeps what they left; then nothing may be left. */
function leaveAll(database: Audited, world: World): void {
  world.now += ALL_GONE_MS;
  for (const id of database.deadCalls(SWEEP_GRACE_MS)) database.release(id);
  database.judge.end();
}
