import type { Call, Entry, NewCall, NewTask, Project, Settled, Task, User } from "./store-rows.ts";

/** An entry to be: what is not said is nothing. */
type Change = Pick<Entry, "kind" | "key"> & {
  [Name in Exclude<keyof Entry, "kind" | "key">]?: Entry[Name] | undefined;
};

/** The ledger's half of the store: accounts, holds, calls, budgets that last for good. */
export class Money {
  /** The database's clock, ms; whoever drives the store moves it. */
  now = 0;
  readonly users = new Map<string, User>();
  readonly projects = new Map<string, Project>();
  readonly tasks = new Map<string, Task>();
  readonly calls = new Map<string, Call>();
  /** Instance to the moment of its last heartbeat. */
  readonly instances = new Map<string, number>();
  readonly #keys = new Set<string>();

  addUser(id: string, balance: number, budget_limit: number | null = null): User {
    const user: User = { id, balance: 0, held: 0, budget_limit, spent: 0, entries: [], tasks: [] };
    this.users.set(id, user);
    if (balance > 0) this.#move(user, { kind: "grant", balance_delta: balance, key: `grant:${id}:initial` });
    return user;
  }

  addProject(id: string, budget_limit: number | null = null): void {
    this.projects.set(id, { id, budget_limit, spent: 0 });
  }

  /** Make a balance exactly this; the same key changes nothing a second time. */
  setBalance(id: string, balance: number, key: string): "ok" | "NotFound" | "Conflict" {
    const user = this.users.get(id);
    if (user === undefined) return "NotFound";
    const entry = `grant:${id}:${key}`;
    if (this.#keys.has(entry)) return "ok";
    if (balance < user.held) return "Conflict";
    this.#move(user, { kind: "grant", balance_delta: balance - user.balance, key: entry });
    return "ok";
  }

  /** Set money aside for a model call, from its task's budget or from the account. */
  open(
    call: NewCall,
  ): "ok" | "Cancelled" | "InsufficientBalance" | "BudgetExceeded" | "Conflict" | "NotFound" {
    const known = this.calls.get(call.id);
    if (known !== undefined) {
      const same = known.user_id === call.user_id && known.task?.id === call.task?.task_id;
      return same && known.state === "open" ? "ok" : "Conflict";
    }
    const user = this.users.get(call.user_id);
    if (user === undefined) return "NotFound";
    const { hold } = call;
    let task: Task | undefined;
    if (call.task === undefined) {
      const free = user.balance - user.held;
      if (free < hold || (hold > 0 && this.#roomOfUser(user) < hold)) {
        return this.#roomOfUser(user) < free ? "BudgetExceeded" : "InsufficientBalance";
      }
      this.#move(user, { kind: "hold", held_delta: hold, call_id: call.id, key: `call:${call.id}:hold` });
    } else {
      task = this.tasks.get(call.task.task_id);
      if (task === undefined || task.user_id !== user.id) return "NotFound";
      if (!this.mayCall(task, call.task.attempt)) return "Cancelled";
      if (task.budget_left < hold) return "InsufficientBalance";
      task.budget_left -= hold;
    }
    const { id, user_id, instance_id } = call;
    const attempt = call.task?.attempt ?? null;
    const row: Call = {
      ...{ id, user_id, instance_id, hold, task, attempt },
      ...{ created_at: this.now, state: "open", charged: 0 },
    };
    this.calls.set(id, row);
    task?.calls.push(row);
    return "ok";
  }

  /** Charge what a call cost: from its hold, its task's budget, then what is free, as far as budgets leave room. */
  settle(id: string, cost: number): Settled | "NotFound" {
    const call = this.calls.get(id);
    const user = this.users.get(call?.user_id ?? "");
    if (call === undefined || user === undefined) return "NotFound";
    if (this.settledBefore(call)) return { settled: false, charged: call.charged, uncollected: 0 };
    const { task } = call;
    const living = task !== undefined && isAlive(task) ? task : undefined;
    const home = task === undefined ? undefined : this.projects.get(task.project_id);
    const reserved = call.state === "open" ? call.hold : 0;
    const ofHold = Math.min(cost, reserved);
    const ofTask = Math.min(cost - ofHold, living?.budget_left ?? 0);
    let beyond = cost - ofHold - ofTask;
    if (beyond > 0) beyond = Math.min(beyond, user.balance - user.held, this.#roomOfUser(user));
    if (beyond > 0 && home !== undefined) beyond = Math.min(beyond, this.#roomOfProject(home));
    const charged = ofHold + ofTask + beyond;
    let unheld = reserved;
    if (living !== undefined) {
      living.budget_left += reserved - ofHold - ofTask;
      unheld = ofHold + ofTask;
    }
    if (home !== undefined) home.spent += charged;
    user.spent += charged;
    call.state = "settled";
    call.charged = charged;
    this.#move(user, {
      ...{ kind: "settle", balance_delta: -charged, held_delta: -unheld },
      ...{ task_id: task?.id, call_id: id, key: `call:${id}:settle` },
    });
    return { settled: true, charged, uncollected: cost - charged };
  }

  /** Give back what an open call holds: to its task while that lives, else to the account. */
  release(id: string): boolean {
    const call = this.calls.get(id);
    const user = this.users.get(call?.user_id ?? "");
    if (call === undefined || user === undefined || call.state !== "open") return false;
    call.state = "released";
    const { task, hold } = call;
    if (task !== undefined && isAlive(task)) task.budget_left += hold;
    else {
      const key = `call:${id}:release`;
      this.#move(user, { kind: "release", held_delta: -hold, task_id: task?.id, call_id: id, key });
    }
    return true;
  }

  /** What a new task holds: what balance and budgets leave of what it asks for. */
  protected holdFor(
    user: User,
    { budget, project_id }: NewTask,
  ): number | "InsufficientBalance" | "BudgetExceeded" {
    const free = user.balance - user.held;
    const project = this.projects.get(project_id);
    const rooms = [this.#roomOfUser(user), project === undefined ? free : this.#roomOfProject(project)];
    const left = Math.min(free, ...rooms);
    if (left < 1) return left < free ? "BudgetExceeded" : "InsufficientBalance";
    return Math.min(budget, left);
  }

  protected holdTask(user: User, task: Task): void {
    const key = `task:${task.id}:hold`;
    this.#move(user, { kind: "hold", held_delta: task.budget_left, task_id: task.id, key });
  }

  protected usedBy(task: Task): number {
    let used = 0;
    for (const { charged } of task.calls) used += charged;
    return used;
  }

  // --- what a variant may take away ------------------------------------------------------------

  protected settledBefore(call: Call): boolean {
    return call.state === "settled";
  }

  /** Whether an attempt of a task may still ask a model. */
  protected mayCall(task: Task, attempt: number): boolean {
    return task.state === "running" && task.attempt === attempt && !task.cancel_requested;
  }

  /** An ended task's unspent budget goes back to the account. */
  protected giveBack(task: Task): void {
    const user = this.users.get(task.user_id);
    const key = `task:${task.id}:release`;
    if (user !== undefined) {
      this.#move(user, { kind: "release", held_delta: -task.budget_left, task_id: task.id, key });
    }
  }

  // ---------------------------------------------------------------------------------------------

  #roomOfUser({ budget_limit, spent, held }: User): number {
    return budget_limit === null ? Number.POSITIVE_INFINITY : Math.max(0, budget_limit - spent - held);
  }

  #roomOfProject({ id, budget_limit, spent }: Project): number {
    return budget_limit === null
      ? Number.POSITIVE_INFINITY
      : Math.max(0, budget_limit - spent - this.heldBy(id));
  }

  /** What a project's work has set aside: its living tasks' budgets and its open calls. */
  heldBy(project_id: string): number {
    let held = 0;
    for (const task of this.tasks.values()) {
      if (task.project_id !== project_id) continue;
      if (isAlive(task)) held += task.budget_left;
      for (const { state, hold } of task.calls) if (state === "open") held += hold;
    }
    return held;
  }

  /** Change an account and write down why, in one; nothing is written for a hold or release of nothing. */
  #move(user: User, change: Change): void {
    const { kind, key, balance_delta = 0, held_delta = 0, task_id = null, call_id = null } = change;
    if (held_delta === 0 && (kind === "hold" || kind === "release")) return;
    user.balance += balance_delta;
    user.held += held_delta;
    this.#keys.add(key);
    user.entries.push({ kind, balance_delta, held_delta, task_id, call_id, key });
  }
}

function isAlive({ state }: Task): boolean {
  return state === "pending" || state === "running";
}
