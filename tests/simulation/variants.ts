import { alive, type Claim, Store } from "./store.ts";
import type { Call, Task } from "./store-rows.ts";

/** Stores in which one promise is broken: the simulation is worth something because it finds each of them. */
export const VARIANTS: Readonly<Record<string, () => Store>> = {
  "fencing removed: whoever asks may write, as long as the task runs": () =>
    new (class extends Store {
      protected override owned(id: string): Task | undefined {
        const task = this.tasks.get(id);
        return task?.state === "running" ? task : undefined;
      }
      protected override mayCall(task: Task): boolean {
        return task.state === "running" && !task.cancel_requested;
      }
    })(),
  "fencing of model calls alone removed": () =>
    new (class extends Store {
      protected override mayCall(task: Task): boolean {
        return task.state === "running" && !task.cancel_requested;
      }
    })(),
  "idempotency removed: a call settled twice is charged twice": () =>
    new (class extends Store {
      protected override settledBefore(_: Call): boolean {
        return false;
      }
    })(),
  "a lost release: an ended task keeps its unspent budget": () =>
    new (class extends Store {
      protected override giveBack(_: Task): void {}
    })(),
  "an unfair place: a user may have more running than their share": () =>
    new (class extends Store {
      protected override placeLeft(): boolean {
        return true;
      }
    })(),
  "an unfair turn: a user's clock does not start again when a task of theirs starts": () =>
    new (class extends Store {
      protected override waitsSince({ task }: { task: Task }): number {
        return task.created_at;
      }
    })(),
  "hunger: priority alone decides": () =>
    new (class extends Store {
      protected override waitsSince(): number {
        return this.now;
      }
    })(),
  "nobody is taken over: leases never end": () =>
    new (class extends Store {
      protected override leaseOver(): boolean {
        return false;
      }
    })(),
  "a lease too long: a lost worker keeps its task for another five seconds": () =>
    new (class extends Store {
      protected override leaseOver(task: Task): boolean {
        return task.state === "running" && (task.lease_until ?? this.now) + 5000 < this.now;
      }
    })(),
  "two ends: what has ended may be ended again": () =>
    new (class extends Store {
      protected override owned(id: string, attempt: number): Task | undefined {
        const task = this.tasks.get(id);
        return task?.attempt === attempt && task.state !== "pending" ? task : undefined;
      }
    })(),
  "attempts without end: a claim does not count": () =>
    new (class extends Store {
      override reap(id: string): "requeued" | "failed" | "cancelled" | undefined {
        const task = this.tasks.get(id);
        if (task !== undefined) Object.assign(task, { max_attempts: task.attempt + 1 });
        return super.reap(id);
      }
    })(),
  "a task claimed twice: two workers get the same one": () =>
    new (class extends Store {
      #last: Task | null = null;
      protected override choose(claim: Claim): Task | null {
        const again =
          this.#last !== null && alive(this.#last) && this.#last.attempt === 1 ? this.#last : null;
        this.#last = again ?? super.choose(claim);
        return this.#last;
      }
    })(),
};
