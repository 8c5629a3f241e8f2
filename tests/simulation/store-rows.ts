import type { TaskState } from "#schemas/events.ts";

/** The rows of the simulated store: the columns that decide something, times in ms, money in micro-credits. */
export interface Task {
  readonly id: string;
  readonly user_id: string;
  readonly project_id: string;
  readonly priority: number;
  readonly max_attempts: number;
  readonly idempotency_key: string | null;
  readonly created_at: number;
  state: TaskState;
  attempt: number;
  user_slot: number | null;
  worker_id: string | null;
  lease_until: number | null;
  available_at: number;
  cancel_requested: boolean;
  paused: boolean;
  started_at: number | null;
  finished_at: number | null;
  change_id: string | null;
  /** The code of what it failed with. */
  error: string | null;
  readonly budget: number;
  budget_left: number;
  readonly events: SimEvent[];
  readonly calls: Call[];
}

export interface SimEvent {
  readonly type: "state" | "text" | "usage" | "change" | "error" | "done";
  readonly text: string;
}

export interface Call {
  readonly id: string;
  readonly user_id: string;
  readonly task: Task | undefined;
  readonly attempt: number | null;
  readonly instance_id: string;
  readonly hold: number;
  readonly created_at: number;
  state: "open" | "settled" | "released";
  /** What was taken for it when it was settled. */
  charged: number;
}

export interface Entry {
  readonly kind: "grant" | "hold" | "settle" | "release";
  readonly balance_delta: number;
  readonly held_delta: number;
  readonly task_id: string | null;
  readonly call_id: string | null;
  readonly key: string;
}

export interface User {
  readonly id: string;
  balance: number;
  held: number;
  /** The most that may be spent and held, for good; null = no ceiling. */
  budget_limit: number | null;
  spent: number;
  readonly entries: Entry[];
  readonly tasks: Task[];
}

export interface Project {
  readonly id: string;
  budget_limit: number | null;
  spent: number;
}

export interface Limits {
  /** Tasks one user may have running. */
  readonly per_user: number;
  /** A user's tasks start at least this far apart, seconds; retries do not count. */
  readonly seconds_between: number;
}

export interface NewTask {
  readonly id: string;
  readonly user_id: string;
  readonly project_id: string;
  readonly priority: number;
  readonly max_attempts: number;
  readonly budget: number;
  readonly pendingLimit: number;
  readonly idempotency_key?: string | undefined;
}

export interface NewCall {
  readonly id: string;
  readonly user_id: string;
  readonly instance_id: string;
  readonly hold: number;
  readonly task?: { readonly task_id: string; readonly attempt: number } | undefined;
}

export interface Settled {
  readonly settled: boolean;
  readonly charged: number;
  readonly uncollected: number;
}
