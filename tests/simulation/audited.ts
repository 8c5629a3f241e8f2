import { found, type Holder, Judge, type Waits } from "./judge.ts";
import type { Scenario } from "./scenario.ts";
import { alive, type Claim, type Renewed, type Store } from "./store.ts";
import type { NewCall, NewTask, Settled, Task } from "./store-rows.ts";
import type { World } from "./world.ts";

const NOBODY: Waits = new Map();

/** The store with somebody watching: every operation is done, then judged. */
export class Audited {
  readonly judge: Judge;
  readonly #store: Store;
  readonly #world: World;
  /** Called when somebody may find something to do. */
  onQueue: () => void = () => undefined;
  onCancel: (task_id: string) => void = () => undefined;
  onPause: (task_id: string, paused: boolean) => void = () => undefined;

  constructor(store: Store, world: World, scenario: Scenario) {
    this.#store = store;
    this.#world = world;
    this.judge = new Judge(store, world, scenario);
    for (const [nth, { balance, limit, project }] of scenario.users.entries()) {
      store.addUser(`u${nth}`, balance, limit);
      store.addProject(`p${nth}`, project);
    }
  }

  enqueue(given: NewTask): string {
    const answer = this.#at().enqueue(given);
    if (typeof answer !== "string" && !answer.created) return answer.task.id;
    if (answer !== "QuotaExceeded") {
      const expected = this.judge.model(given.user_id).dispatch(given.id, given.project_id, given.budget);
      this.judge.same("a dispatch", typeof answer === "string" ? answer : "ok", expected);
    }
    if (typeof answer === "string") return answer;
    this.judge.begin(answer.task);
    this.judge.task(answer.task);
    this.onQueue();
    return answer.task.id;
  }

  claim(claim: Claim): Holder | null {
    const waits = this.#waiting ? this.judge.waiting(claim) : NOBODY;
    const task = this.#at().claim(claim);
    if (task === null) return null;
    this.judge.claimed(task, waits, claim);
    return { task_id: task.id, attempt: task.attempt };
  }

  renew({ task_id, attempt }: Holder, lease_ms: number): Renewed {
    this.judge.late(this.#task(task_id));
    const answer = this.#at().renew(task_id, attempt, lease_ms);
    this.judge.write("a renewal", this.#task(task_id), attempt, answer.alive);
    return answer;
  }

  append({ task_id, attempt }: Holder, text: string): boolean {
    const written = this.#at().append(task_id, attempt, text);
    this.judge.write("an event", this.#task(task_id), attempt, written);
    return written;
  }

  finish(
    { task_id, attempt }: Holder,
    state: "completed" | "failed" | "cancelled",
    change?: string,
  ): boolean {
    const written = this.#at().finish(task_id, attempt, state, change);
    return this.#ended("an end", { task_id, attempt }, written);
  }

  requeue({ task_id, attempt }: Holder, delay_ms: number, why: "retry" | "shutdown"): boolean {
    const written = this.#at().requeue(task_id, attempt, delay_ms);
    if (written && why === "shutdown") this.judge.known(this.#task(task_id)).shutdowns += 1;
    return this.#ended("a put-back", { task_id, attempt }, written);
  }

  cancel(task_id: string): string {
    const waited = this.#store.tasks.get(task_id)?.state === "pending";
    const answer = this.#at().cancel(task_id);
    if (answer === "NotFound") return answer;
    const task = this.#task(task_id);
    if (waited) this.#left(task);
    if (answer !== "running") return answer;
    Object.assign(this.judge.modelTask(task) ?? {}, { cancelling: true });
    this.onCancel(task_id);
    return answer;
  }

  setPaused(task_id: string, paused: boolean): string {
    const answer = this.#at().setPaused(task_id, paused);
    if (answer === "NotFound") return answer;
    this.judge.task(this.#task(task_id));
    if (answer === "running") this.onPause(task_id, paused);
    if (!paused) this.onQueue();
    return answer;
  }

  expired(own: readonly string[]): string[] {
    return this.#at().expired(own);
  }

  reap(task_id: string): string | undefined {
    const task = this.#task(task_id);
    this.judge.late(task);
    const open = task.calls.filter(({ state, attempt }) => state === "open" && attempt === task.attempt);
    const fate = this.#at().reap(task_id);
    if (fate === undefined) return undefined;
    this.judge.counts.taken_over += 1;
    for (const { id } of open) this.#modelRelease(task.user_id, id);
    this.#left(task);
    return fate;
  }

  open(call: NewCall): string {
    const known = this.#store.calls.has(call.id);
    const answer = this.#at().open(call);
    if (known) return answer;
    const model = this.judge.model(call.user_id);
    const task =
      call.task === undefined ? undefined : model.tasks.find(({ id }) => id === call.task?.task_id);
    this.judge.same("a hold", answer, model.open(call.id, call.hold, task, call.task?.attempt ?? 0));
    this.judge.money(call.user_id);
    return answer;
  }

  settle(call_id: string, cost: number): Settled | "NotFound" {
    const user_id = this.#store.calls.get(call_id)?.user_id;
    const answer = this.#at().settle(call_id, cost);
    if (user_id === undefined || answer === "NotFound") return answer;
    const model = this.judge.model(user_id);
    const call = found(
      model.calls.find(({ id }) => id === call_id),
      call_id,
    );
    const { settled, charged, uncollected } = model.settle(call, cost);
    if (!settled) this.judge.counts.repeated += 1;
    if (uncollected > 0) this.judge.counts.uncollected += 1;
    this.judge.same("a charge", `${answer.settled} ${answer.charged}`, `${settled} ${charged}`);
    this.judge.money(user_id);
    return answer;
  }

  release(call_id: string): boolean {
    const user_id = this.#store.calls.get(call_id)?.user_id;
    const released = this.#at().release(call_id);
    if (user_id === undefined) return released;
    this.judge.same("a release", released, this.#modelRelease(user_id, call_id));
    this.judge.money(user_id);
    return released;
  }

  setBalance(user_id: string, balance: number, key: string): string {
    const entries = this.#store.users.get(user_id)?.entries;
    const before = entries?.length;
    const answer = this.#at().setBalance(user_id, balance, key);
    if (entries?.length !== before || answer === "Conflict") {
      this.judge.same("a grant", answer, this.judge.model(user_id).grant(balance));
    }
    this.judge.money(user_id);
    return answer;
  }

  heartbeat(instance_id: string): void {
    this.#at().heartbeat(instance_id);
  }

  removeInstance(instance_id: string): void {
    this.#at().removeInstance(instance_id);
  }

  deadCalls(older_than_ms: number, instance_id?: string): string[] {
    return this.#at().deadCalls(older_than_ms, instance_id);
  }

  /** Whether every task has ended. */
  get quiet(): boolean {
    for (const task of this.#store.tasks.values()) if (alive(task)) return false;
    return true;
  }

  get #waiting(): boolean {
    for (const { state } of this.#store.tasks.values()) if (state === "pending") return true;
    return false;
  }

  #ended(what: string, { task_id, attempt }: Holder, written: boolean): boolean {
    const task = this.#task(task_id);
    this.judge.write(what, task, attempt, written);
    if (written) this.#left(task);
    return written;
  }

  #left(task: Task): void {
    this.judge.left(task);
    this.onQueue();
  }

  #modelRelease(user_id: string, call_id: string): boolean {
    const model = this.judge.model(user_id);
    const call = model.calls.find(({ id }) => id === call_id);
    return call === undefined ? false : model.release(call);
  }

  #at(): Store {
    this.#store.now = this.#world.now;
    return this.#store;
  }

  #task(id: string): Task {
    return found(this.#store.tasks.get(id), id);
  }
}
