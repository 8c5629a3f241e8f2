import { isTerminal } from "#schemas/events.ts";
import { MoneyModel } from "#tests/support/money-model.ts";
import type { Scenario } from "./scenario.ts";
import { alive, type Claim, type Store } from "./store.ts";
import type { Task, User } from "./store-rows.ts";
import type { World } from "./world.ts";

/** A task whose lease is over has been taken from its worker within this, as long as somebody is there to do it. */
const TAKEOVER_MS = 3000;

/** One attempt of a task, as its worker names it. */
export interface Holder {
  readonly task_id: string;
  readonly attempt: number;
}

/** What is known of a task without asking the store. */
interface Known {
  /** Claims so far: the one attempt that may write, while `held`. */
  claims: number;
  held: boolean;
  /** Put back for a shutdown, which costs no attempt. */
  shutdowns: number;
  /** How many events it had when it ended. */
  ended: number | undefined;
}

/** Waiting tasks: since when each one's wait counts, and whether it might start now. */
export type Waits = Map<Task, { since: number; startable: boolean }>;

/** How often something happened that the simulation is there for. */
export interface Counts {
  /** Writes of a worker whose attempt was over, refused. */
  refused: number;
  /** Those of them that came while a later attempt was running. */
  fenced: number;
  /** Tasks taken from lost workers. */
  taken_over: number;
  /** Claims of a task that had run before. */
  again: number;
  /** Calls closed a second time. */
  repeated: number;
  /** Charges that were not there to take in full. */
  uncollected: number;
}

/**
 * What must be true whatever the store does. Money is compared with the model that the database is compared with
 * elsewhere.
 */
export class Judge {
  readonly #store: Store;
  readonly #world: World;
  readonly #known = new Map<string, Known>();
  readonly #models = new Map<string, MoneyModel>();
  readonly #sums = new Map<string, { read: number; balance: number; held: number }>();
  readonly counts: Counts = { refused: 0, fenced: 0, taken_over: 0, again: 0, repeated: 0, uncollected: 0 };
  /** Whether anybody but the task's own worker could have taken it over since that moment. */
  somebodySince: (moment: number, task: Task) => boolean = () => true;

  constructor(store: Store, world: World, { users }: Scenario) {
    this.#store = store;
    this.#world = world;
    for (const [nth, { balance, limit, project }] of users.entries()) {
      const model = new MoneyModel(balance, [`p${nth}`]);
      model.setBudget("", { limit, period: "total" });
      model.setBudget(`p${nth}`, { limit: project, period: "total" });
      this.#models.set(`u${nth}`, model);
      this.#sums.set(`u${nth}`, { read: 0, balance: 0, held: 0 });
    }
  }

  begin({ id }: Task): void {
    this.#known.set(id, { claims: 0, held: false, shutdowns: 0, ended: undefined });
  }

  /** A task was claimed. */
  claimed(task: Task, waits: Waits, claim: Claim): void {
    const known = this.known(task);
    if (known.held || known.ended !== undefined)
      this.fail(`${task.id} was claimed while it ran or had ended`);
    known.claims += 1;
    known.held = true;
    if (known.claims > 1) this.counts.again += 1;
    const most = task.max_attempts + known.shutdowns;
    if (task.attempt !== known.claims || task.attempt > most) {
      this.fail(`${task.id} is at attempt ${task.attempt}, claimed ${known.claims} times, of ${most}`);
    }
    Object.assign(this.modelTask(task) ?? {}, { state: "running", attempt: task.attempt });
    this.#places(task, claim);
    this.#turn(task, waits, claim);
    this.task(task);
  }

  /** A task is nobody's any more: it waits again or has ended. */
  left(task: Task): void {
    this.known(task).held = false;
    const model = this.modelTask(task);
    if (model !== undefined && isTerminal(task.state)) this.model(task.user_id).end(model);
    else if (model !== undefined) model.state = "pending";
    this.task(task);
  }

  /** When everything has ended and every dead call was swept: nothing may be left over anywhere. */
  end(): void {
    for (const task of this.#store.tasks.values()) {
      if (alive(task)) this.fail(`${task.id} still ${task.state}: it waits for ever`);
      this.task(task);
    }
    for (const { id, state } of this.#store.calls.values()) {
      if (state === "open") this.fail(`the hold of call ${id} was neither settled nor released`);
    }
    for (const user of this.#store.users.values()) {
      this.money(user.id);
      if (user.held !== 0) this.fail(`${user.held} of ${user.id} are still held when nothing is left`);
      this.#entries(user);
    }
  }

  /** Whoever writes must be at work on the attempt that was claimed last, and nobody may have taken it away. */
  write(what: string, task: Task, attempt: number, accepted: boolean): void {
    const { claims, held } = this.known(task);
    if (!accepted) {
      this.counts.refused += 1;
      if (held && claims > attempt) this.counts.fenced += 1;
    }
    if (!accepted || (held && claims === attempt)) return;
    const whose = held ? `attempt ${claims} runs` : "none runs";
    this.fail(`${what} of attempt ${attempt} of ${task.id} was accepted, though ${whose}`);
  }

  /** A task ends once, and the last thing told of it is its end. */
  task(task: Task): void {
    const known = this.known(task);
    const { events } = task;
    if (known.ended !== undefined) {
      if (!isTerminal(task.state) || events.length !== known.ended)
        this.fail(`${task.id} went on after its end`);
    } else if (isTerminal(task.state)) {
      known.ended = events.length;
      const done = events.filter(({ type }) => type === "done");
      if (done.length !== 1 || events.at(-1)?.text !== task.state)
        this.fail(`${task.id} did not end with one done`);
    }
    this.money(task.user_id);
  }

  /** Never more than so many at once, each in a place of its own. */
  #places(task: Task, { per_user }: Claim): void {
    const running = this.#user(task.user_id).tasks.filter(({ state }) => state === "running");
    const places = new Set(running.map(({ user_slot }) => user_slot));
    const own = running.every(({ user_slot: slot }) => slot !== null && slot >= 0 && slot < per_user);
    if (running.length > per_user || places.size !== running.length || !own) {
      this.fail(
        `${running.length} tasks of ${task.user_id} run in places ${[...places].join(", ")} of ${per_user}`,
      );
    }
  }

  /** What might start now, and since when its user's clock runs. */
  waiting({ per_user, seconds_between }: Claim): Waits {
    const waits: Waits = new Map();
    const { now } = this.#world;
    for (const { tasks } of this.#store.users.values()) {
      const started = tasks.map(({ started_at }) => started_at ?? Number.NEGATIVE_INFINITY);
      const last = Math.max(...started);
      const room = tasks.filter(({ state }) => state === "running").length < per_user;
      const rested = last + seconds_between * 1000 <= now;
      for (const task of tasks) {
        if (task.state !== "pending") continue;
        const since = task.attempt === 0 ? Math.max(task.created_at, last) : task.created_at;
        const startable = room && task.available_at <= now && !task.paused && (task.attempt > 0 || rested);
        waits.set(task, { since, startable });
      }
    }
    return waits;
  }

  /**
   * Overtaking is bounded: priority is worth so much waiting and no more. A task may start before another user's
   * only while not every startable one of theirs has waited longer by the difference in priority and one point.
   */
  #turn(task: Task, waits: Waits, { aging }: Claim): void {
    const own = waits.get(task);
    if (own?.startable !== true) {
      this.fail(`${task.id} started though it was not its time`);
      return;
    }
    const point_ms = 60_000 / aging;
    const overtaken = new Map<string, boolean>();
    for (const [other, { since, startable }] of waits) {
      if (!startable || other.user_id === task.user_id) continue;
      const worth = (task.priority - other.priority + 1) * point_ms;
      overtaken.set(other.user_id, (overtaken.get(other.user_id) ?? true) && since + worth <= own.since);
    }
    for (const [user, unfair] of overtaken)
      if (unfair) this.fail(`${task.id} overtook ${user}, who had waited longer`);
  }

  /** Looked at when somebody does something about a lease that is over. */
  late(task: Task): void {
    const { state, lease_until } = task;
    if (state !== "running" || lease_until === null) return;
    const late = this.#world.now - lease_until;
    if (late <= TAKEOVER_MS || !this.somebodySince(lease_until, task)) return;
    this.fail(`${task.id} was left with a lost worker for ${Math.round(late)} ms after its lease`);
  }

  /** The account is what its ledger says, and what the model says; nothing is overdrawn. */
  money(user_id: string): void {
    const user = this.#user(user_id);
    const sums = this.#sums.get(user_id);
    if (sums === undefined) return;
    for (; sums.read < user.entries.length; sums.read += 1) {
      sums.balance += user.entries[sums.read]?.balance_delta ?? 0;
      sums.held += user.entries[sums.read]?.held_delta ?? 0;
    }
    const { balance, held } = user;
    const model = this.model(user_id);
    if (balance !== sums.balance || held !== sums.held) {
      this.fail(`${user_id} has ${balance}, ${held} held; the ledger says ${sums.balance}, ${sums.held}`);
    }
    if (balance < 0 || held < 0 || held > balance)
      this.fail(`${user_id} is overdrawn: ${balance}, ${held} held`);
    if (balance !== model.balance || held !== model.held()) {
      this.fail(`${user_id} has ${balance}, ${held} held; the model says ${model.balance}, ${model.held()}`);
    }
    const passed = model.passed();
    if (passed.length > 0) this.fail(`a budget of ${user_id} is passed: ${passed.join(", ")}`);
  }

  /** Every hold was taken once and given up once, by tasks and calls alike; every call was charged at most once. */
  #entries({ id, entries }: User): void {
    const keys = new Set(entries.map(({ key }) => key));
    if (keys.size !== entries.length) this.fail(`the ledger of ${id} says something twice`);
    const held = new Map<string, number>();
    for (const { task_id, call_id, held_delta } of entries) {
      const whose = task_id ?? call_id;
      if (whose !== null) held.set(whose, (held.get(whose) ?? 0) + held_delta);
    }
    for (const [whose, left] of held)
      if (left !== 0) this.fail(`${left} of ${whose}'s hold were never given up`);
  }

  /** An answer about money must be the model's. */
  same(what: string, answer: unknown, expected: unknown): void {
    if (answer !== expected) this.fail(`${what} was answered with ${answer}; the model says ${expected}`);
  }

  fail(what: string): void {
    this.#world.fail(what);
  }

  known({ id }: Task): Known {
    return found(this.#known.get(id), id);
  }

  model(user_id: string): MoneyModel {
    return found(this.#models.get(user_id), user_id);
  }

  modelTask({ id, user_id }: Task) {
    return this.model(user_id).tasks.find((task) => task.id === id);
  }

  #user(id: string): User {
    return found(this.#store.users.get(id), id);
  }
}

/** @throws when the simulation asks for what it never made. */
export function found<T>(value: T | undefined, name: string): T {
  if (value === undefined) throw new Error(`the simulation knows no ${name}`);
  return value;
}
