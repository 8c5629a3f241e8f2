import type { Database } from "#database";
import type { NewChange } from "#database/projects/index.ts";
import type { ClaimedTask } from "#database/queue/index.ts";
import type { Config } from "#platform/config/config.ts";
import type { Log } from "#platform/log.ts";
import type { TaskTokens } from "#platform/tokens/index.ts";
import type { SandboxHost } from "#sandbox";
import type { PlanStep, TaskError } from "#schemas";
import type { Runner } from "../runners/runner.ts";
import type { LeaseRenewals } from "./lease-renewals.ts";

/** What a run needs from the outside; `log` names its task. */
export interface RunDeps {
  readonly database: Database;
  readonly config: Config;
  readonly log: Log;
  /** By name, as tasks call them. */
  readonly runners: Readonly<Record<string, Runner>>;
  readonly host: Pick<SandboxHost, "start">;
  readonly taskTokens: TaskTokens;
  readonly leases: LeaseRenewals;
}

export type RunningTask = ClaimedTask;

/** What a run came to, and so what has to be put on record. */
export type RunEnd =
  | {
      readonly kind: "finish";
      readonly state: "completed" | "failed" | "cancelled";
      readonly error?: TaskError;
      readonly change?: NewChange;
      /** Steps the agent wants done next. */
      readonly plan?: readonly PlanStep[];
    }
  /** Something of ours broke before the agent began: another attempt, if there is one left. */
  | { readonly kind: "retry"; readonly error: TaskError }
  /** Back into the queue through no fault of the task. */
  | { readonly kind: "requeue"; readonly note: string }
  /** The task is somebody else's by now: nothing is written. */
  | { readonly kind: "lost" };
