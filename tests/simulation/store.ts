import { isTerminal, type TaskState } from "#schemas/events.ts";
import { Money } from "./store-money.ts";
import type { Limits, NewTask, SimEvent, Task, User } from "./store-rows.ts";

/** An instance without a heartbeat for this long counts as gone, ms. */
const ALIVE_MS = 15_000;

export interface Claim extends Limits {
  readonly worker_id: string;
  readonly capacity: number;
  readonly lease_ms: number;
  /** Points of priority a waiting task gains per minute. */
  readonly aging: number;
}

export interface Renewed {
  readonly alive: boolean;
  readonly cancel: boolean;
  readonly paused: boolean;
}

/** A waiting task as the line sees it. */
interface Candidate {
  readonly task: Task;
  readonly user: User;
  readonly running: number;
  readonly last_started: number | null;
  readonly due: boolean;
  readonly limited: boolean;
}

/**
 * The queue and the ledger in memory: what the functions of `database/queue` and `database/ledger` do, each method
 * one transaction, refusals told by their code. `differential.test.ts` keeps it to what PostgreSQL does. What the
 * simulation takes away to see itself fail stands in methods of its own (`variants.ts`).
 */
export class Store extends Money {
  /** Micro-credits held for what a task costs at most, or why it is refused. */
  enqueue(given: NewTask): { task: Task; created: boolean } | string {
    const user = this.users.get(given.user_id);
    if (user === undefined) return "NotFound";
    const { idempotency_key: key = null } = given;
    const known = key === null ? undefined : user.tasks.find((task) => task.idempotency_key === key);
    if (known !== undefined) return { task: known, created: false };
    if (user.tasks.filter(({ state }) => state === "pending").length >= given.pendingLimit)
      return "QuotaExceeded";
    const held = this.holdFor(user, given);
    if (typeof held === "string") return held;
    const task: Task = {
      ...{ id: given.id, user_id: given.user_id, project_id: given.project_id, priority: given.priority },
      ...{ max_attempts: given.max_attempts, idempotency_key: key, state: "pending", attempt: 0 },
      ...{
        user_slot: null,
        worker_id: null,
        lease_until: null,
        available_at: this.now,
        created_at: this.now,
      },
      ...{ cancel_requested: false, paused: false, started_at: null, finished_at: null, change_id: null },
      ...{ error: null, budget: held, budget_left: held, events: [], calls: [] },
    };
    user.tasks.push(task);
    this.tasks.set(task.id, task);
    this.holdTask(user, task);
    this.log(task, { type: "state", text: "pending" });
    return { task, created: true };
  }

  /** The next task in the queue's order, running from now on; null when none may start. */
  claim(claim: Claim): Task | null {
    let mine = 0;
    for (const { state, worker_id } of this.tasks.values())
      if (state === "running" && worker_id === claim.worker_id) mine += 1;
    if (mine >= claim.capacity) return null;
    const task = this.choose(claim);
    if (task === null) return null;
    task.state = "running";
    task.attempt += 1;
    task.worker_id = claim.worker_id;
    task.user_slot = this.#freeSlot(task.user_id, claim.per_user);
    task.lease_until = this.now + claim.lease_ms;
    task.started_at ??= this.now;
    this.log(task, { type: "state", text: `running ${task.attempt}` });
    return task;
  }

  /** Keep a running task for another `lease_ms`. */
  renew(id: string, attempt: number, lease_ms: number): Renewed {
    const task = this.owned(id, attempt);
    if (task === undefined) return { alive: false, cancel: false, paused: false };
    task.lease_until = this.now + lease_ms;
    return { alive: true, cancel: task.cancel_requested, paused: task.paused };
  }

  /** Add to a running task's log. @returns false: it is not the caller's any more. */
  append(id: string, attempt: number, text: string): boolean {
    const task = this.owned(id, attempt);
    if (task === undefined) return false;
    this.log(task, { type: "text", text });
    return true;
  }

  /** End a running task. @returns false: it is not the caller's any more. */
  finish(id: string, attempt: number, state: "completed" | "failed" | "cancelled", change?: string): boolean {
    const task = this.owned(id, attempt);
    if (task === undefined) return false;
    this.conclude(task, state, { change, error: state === "failed" ? "RunFailed" : undefined });
    return true;
  }

  /** Give a running task back to the queue; one that is to be cancelled ends instead. */
  requeue(id: string, attempt: number, delay_ms: number): boolean {
    const task = this.owned(id, attempt);
    if (task === undefined) return false;
    if (task.cancel_requested) this.conclude(task, "cancelled");
    else this.#putBack(task, delay_ms);
    return true;
  }

  /** Ask for a task's end: a waiting one ends at once, a running one is marked. */
  cancel(id: string): TaskState | "NotFound" {
    const task = this.tasks.get(id);
    if (task === undefined) return "NotFound";
    if (task.state === "pending") this.conclude(task, "cancelled");
    else if (task.state === "running") task.cancel_requested = true;
    return task.state;
  }

  /** Let a task rest, or go on: a waiting one leaves the line or comes back with its age, a running one is marked. */
  setPaused(id: string, paused: boolean): TaskState | "NotFound" {
    const task = this.tasks.get(id);
    if (task === undefined) return "NotFound";
    if (isTerminal(task.state) || task.paused === paused) return task.state;
    task.paused = paused;
    if (task.state === "pending") this.log(task, { type: "state", text: paused ? "paused" : "goes on" });
    return task.state;
  }

  /** Running tasks whose lease is over, longest over first, but for those the caller is at work on. */
  expired(own: readonly string[]): string[] {
    const over: Task[] = [];
    for (const task of this.tasks.values())
      if (this.leaseOver(task) && !own.includes(task.id)) over.push(task);
    return over.sort((a, b) => (a.lease_until ?? 0) - (b.lease_until ?? 0)).map(({ id }) => id);
  }

  /** Take one such task away from its worker. */
  reap(id: string): "requeued" | "failed" | "cancelled" | undefined {
    const task = this.tasks.get(id);
    if (task === undefined || !this.leaseOver(task)) return undefined;
    for (const call of task.calls) if (call.attempt === task.attempt) this.release(call.id);
    if (task.cancel_requested) {
      this.conclude(task, "cancelled");
      return "cancelled";
    }
    if (task.attempt < task.max_attempts) {
      this.#putBack(task, 0);
      return "requeued";
    }
    this.conclude(task, "failed", { error: "RunFailed" });
    return "failed";
  }

  heartbeat(instance_id: string): void {
    this.instances.set(instance_id, this.now);
  }

  removeInstance(instance_id: string): void {
    this.instances.delete(instance_id);
  }

  /** Open calls of processes that died: those of `instance_id`, or of every instance without a heartbeat. */
  deadCalls(older_than_ms: number, instance_id?: string): string[] {
    const dead: string[] = [];
    for (const call of this.calls.values()) {
      const whose =
        instance_id === undefined ? !this.#lives(call.instance_id) : call.instance_id === instance_id;
      if (call.state === "open" && call.created_at <= this.now - older_than_ms && whose) dead.push(call.id);
    }
    return dead;
  }

  #lives(instance_id: string): boolean {
    const heartbeat_at = this.instances.get(instance_id);
    return heartbeat_at !== undefined && heartbeat_at > this.now - ALIVE_MS;
  }

  // --- what a variant may take away ------------------------------------------------------------

  /** The fence: a task, while it runs the attempt the caller names. */
  protected owned(id: string, attempt: number): Task | undefined {
    const task = this.tasks.get(id);
    return task?.state === "running" && task.attempt === attempt ? task : undefined;
  }

  protected leaseOver(task: Task): boolean {
    return task.state === "running" && task.lease_until !== null && task.lease_until < this.now;
  }

  /** Whether a user with so many running tasks may have another. */
  protected placeLeft(running: number, { per_user }: Limits): boolean {
    return running < per_user;
  }

  /** What a waiting task's wait is counted from: its user's clock starts again whenever a task of theirs starts. */
  protected waitsSince({ task, last_started }: Candidate): number {
    return task.attempt === 0 && last_started !== null
      ? Math.max(task.created_at, last_started)
      : task.created_at;
  }

  /** The task that is to start next: of every user's first the one with the most points. */
  protected choose(claim: Claim): Task | null {
    let best: Candidate | undefined;
    for (const user of this.users.values()) {
      const first = this.#firstOf(user, claim);
      if (first !== undefined && (best === undefined || this.#compareUsers(first, best, claim) < 0))
        best = first;
    }
    return best?.task ?? null;
  }

  protected conclude(
    task: Task,
    state: "completed" | "failed" | "cancelled",
    { change, error }: { change?: string | undefined; error?: string | undefined } = {},
  ): void {
    this.log(task, { type: "usage", text: String(this.usedBy(task)) });
    if (change !== undefined) this.log(task, { type: "change", text: change });
    if (error !== undefined) this.log(task, { type: "error", text: error });
    this.log(task, { type: "done", text: state });
    this.giveBack(task);
    Object.assign(task, { state, change_id: change ?? null, error: error ?? null, budget_left: 0 });
    Object.assign(task, { user_slot: null, lease_until: null, finished_at: this.now, paused: false });
  }

  protected log(task: Task, event: SimEvent): void {
    task.events.push(event);
  }

  // ---------------------------------------------------------------------------------------------

  #putBack(task: Task, delay_ms: number): void {
    Object.assign(task, { state: "pending", worker_id: null, user_slot: null, lease_until: null });
    task.available_at = this.now + delay_ms;
    this.log(task, { type: "state", text: `pending ${task.attempt}` });
  }

  #freeSlot(user_id: string, per_user: number): number | null {
    const tasks = this.users.get(user_id)?.tasks ?? [];
    for (let slot = 0; slot < per_user; slot += 1)
      if (!tasks.some((task) => task.state === "running" && task.user_slot === slot)) return slot;
    return null;
  }

  #firstOf(user: User, claim: Claim): Candidate | undefined {
    let running = 0;
    let last_started: number | null = null;
    for (const { state, started_at } of user.tasks) {
      if (state === "running") running += 1;
      if (started_at !== null && (last_started === null || started_at > last_started))
        last_started = started_at;
    }
    if (!this.placeLeft(running, claim)) return undefined;
    const limited = last_started !== null && last_started + claim.seconds_between * 1000 > this.now;
    let first: Candidate | undefined;
    for (const task of user.tasks) {
      if (task.state !== "pending" || task.paused) continue;
      const due = task.available_at <= this.now;
      const candidate = { task, user, running, last_started, due, limited };
      if (first === undefined || this.#compareOwn(candidate, first, claim) < 0) first = candidate;
    }
    return first !== undefined && startable(first) ? first : undefined;
  }

  #points(since: number, aging: number): number {
    return Math.floor((aging / 60) * ((this.now - since) / 1000));
  }

  /** Negative: `a` is before `b` among the tasks of one user. */
  #compareOwn(a: Candidate, b: Candidate, { aging }: Claim): number {
    return (
      Number(startable(b)) - Number(startable(a)) ||
      b.task.priority +
        this.#points(b.task.created_at, aging) -
        (a.task.priority + this.#points(a.task.created_at, aging)) ||
      a.task.created_at - b.task.created_at ||
      byText(a.task.id, b.task.id)
    );
  }

  /** Negative: `a` is before `b` among the first tasks of users. */
  #compareUsers(a: Candidate, b: Candidate, { aging }: Claim): number {
    return (
      b.task.priority +
        this.#points(this.waitsSince(b), aging) -
        (a.task.priority + this.#points(this.waitsSince(a), aging)) ||
      a.running - b.running ||
      (a.last_started ?? Number.NEGATIVE_INFINITY) - (b.last_started ?? Number.NEGATIVE_INFINITY) ||
      a.task.created_at - b.task.created_at ||
      byText(a.task.id, b.task.id)
    );
  }
}

/** A retry was admitted before: it is not rate limited. */
function startable({ task, due, limited }: Candidate): boolean {
  return due && (task.attempt > 0 || !limited);
}

function byText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Whether a task can still move. */
export function alive(task: Task): boolean {
  return !isTerminal(task.state);
}

export type { Task, User };
