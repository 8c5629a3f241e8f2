/**
 * What the ledger is to do, said once more and simply: one user's money in memory, one step after the other. Tests
 * do the same to the database and compare.
 */

export interface ModelBudget {
  limit: number | null;
  period: "month" | "total";
}

export interface ModelTask {
  readonly id: string;
  readonly project: string;
  attempt: number;
  state: "pending" | "running" | "ended";
  cancelling: boolean;
  left: number;
}

interface ModelCall {
  readonly id: string;
  readonly hold: number;
  readonly task: ModelTask | undefined;
  state: "open" | "settled" | "released";
  charged: number;
}

interface Charge {
  readonly amount: number;
  readonly project: string | undefined;
  /** Calendar months since. */
  age: number;
}

export class MoneyModel {
  balance: number;
  readonly tasks: ModelTask[] = [];
  readonly calls: ModelCall[] = [];
  readonly #charges: Charge[] = [];
  /** By project; the empty name is the user. */
  readonly #budgets = new Map<string, ModelBudget>();
  /** What spent and held together may come to: the limit, or what they came to when it was set. */
  readonly #ceilings = new Map<string, number>();

  constructor(balance: number, projects: readonly string[]) {
    this.balance = balance;
    for (const name of ["", ...projects]) this.#budgets.set(name, { limit: null, period: "month" });
  }

  budget(name: string): ModelBudget {
    return this.#budgets.get(name) ?? { limit: null, period: "month" };
  }

  spent(name: string): number {
    const { period } = this.budget(name);
    return sum(
      this.#charges
        .filter(({ project, age }) => (name === "" || project === name) && (period === "total" || age === 0))
        .map(({ amount }) => amount),
    );
  }

  held(name = ""): number {
    const tasks = this.tasks.filter(({ project, state }) => of(name, project) && state !== "ended");
    const open = this.calls.filter(({ task, state }) => of(name, task?.project) && state === "open");
    return sum(tasks.map(({ left }) => left)) + sum(open.map(({ hold }) => hold));
  }

  get free(): number {
    return this.balance - this.held();
  }

  #room(name: string): number {
    const { limit } = this.budget(name);
    return limit === null
      ? Number.POSITIVE_INFINITY
      : Math.max(0, limit - this.spent(name) - this.held(name));
  }

  /** Names of budgets that were passed: there must never be one. */
  passed(): string[] {
    return [...this.#ceilings].flatMap(([name, ceiling]) =>
      this.spent(name) + this.held(name) > ceiling ? [name] : [],
    );
  }

  grant(balance: number): string {
    if (balance < this.held()) return "Conflict";
    this.balance = balance;
    return "ok";
  }

  setBudget(name: string, budget: ModelBudget): string {
    this.#budgets.set(name, budget);
    const { limit } = budget;
    if (limit === null) this.#ceilings.delete(name);
    else this.#ceilings.set(name, Math.max(limit, this.spent(name) + this.held(name)));
    return "ok";
  }

  dispatch(id: string, project: string, budget: number): string {
    const left = Math.min(this.free, this.#room(""), this.#room(project));
    if (left < 1) return left === this.free ? "InsufficientBalance" : "BudgetExceeded";
    const held = Math.min(budget, left);
    this.tasks.push({ id, project, attempt: 0, state: "pending", cancelling: false, left: held });
    return "ok";
  }

  open(id: string, hold: number, task: ModelTask | undefined, attempt: number): string {
    if (task !== undefined) {
      if (task.state !== "running" || task.cancelling || task.attempt !== attempt) return "Cancelled";
      if (task.left < hold) return "InsufficientBalance";
      task.left -= hold;
    } else if (hold > 0 && (this.free < hold || this.#room("") < hold)) {
      return this.#room("") < Math.min(this.free, hold) ? "BudgetExceeded" : "InsufficientBalance";
    }
    this.calls.push({ id, hold, task, state: "open", charged: 0 });
    return "ok";
  }

  settle(call: ModelCall, cost: number): { settled: boolean; charged: number; uncollected: number } {
    if (call.state === "settled") return { settled: false, charged: call.charged, uncollected: 0 };
    const { task } = call;
    const living = task !== undefined && task.state !== "ended" ? task : undefined;
    const reserved = call.state === "open" ? call.hold : 0;
    const ofHold = Math.min(cost, reserved);
    const ofTask = Math.min(cost - ofHold, living?.left ?? 0);
    const project = task?.project;
    const beyond = Math.min(
      cost - ofHold - ofTask,
      this.free,
      this.#room(""),
      project === undefined ? Number.POSITIVE_INFINITY : this.#room(project),
    );
    call.state = "settled";
    call.charged = ofHold + ofTask + beyond;
    if (living !== undefined) living.left += reserved - ofHold - ofTask;
    this.balance -= call.charged;
    this.#charges.push({ amount: call.charged, project, age: 0 });
    return { settled: true, charged: call.charged, uncollected: cost - call.charged };
  }

  release(call: ModelCall): boolean {
    if (call.state !== "open") return false;
    call.state = "released";
    if (call.task !== undefined && call.task.state !== "ended") call.task.left += call.hold;
    return true;
  }

  end(task: ModelTask): void {
    task.state = "ended";
    task.left = 0;
  }

  /** Everything so far happened a month earlier. */
  monthPasses(): void {
    for (const charge of this.#charges) charge.age += 1;
  }
}

function of(name: string, project: string | undefined): boolean {
  return name === "" || project === name;
}

function sum(amounts: readonly number[]): number {
  return amounts.reduce((total, amount) => total + amount, 0);
}
