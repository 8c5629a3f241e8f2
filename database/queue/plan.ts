import { sql } from "kysely";
import type { StepOrder } from "#schemas";
import { inTransaction } from "../in-transaction.ts";
import { microcredits } from "../ledger/amount.ts";
import type { Db, PlanRow, TaskRow } from "../schema.ts";
import { checkContinues, checkPending, leastOf, lockGate, refuseNul } from "./admit.ts";
import { keyTaken } from "./enqueue.ts";
import { insertTask, type TaskExtras } from "./insert.ts";
import { findByKey, findPlanByKey, planTasks } from "./read.ts";
import { checkSteps } from "./steps.ts";

/** One task of a plan. */
export interface NewStep extends StepOrder {
  readonly task_id: string;
  readonly agent: string;
  readonly runner: string;
  readonly model: string;
  readonly prompt: string;
  readonly priority: number;
}

/** Several tasks of one project, some after others; the extras hold for each. */
export interface NewPlan extends Omit<TaskExtras, "resolves"> {
  readonly id: string;
  readonly user_id: string;
  readonly project_id: string;
  readonly steps: readonly NewStep[];
  readonly max_attempts: number;
  /** Micro-credits to hold for all steps together, in equal parts; less is held where less is free. */
  readonly budget: number;
  /** Waiting tasks one user may have. */
  readonly pendingLimit: number;
  /** The same key of the same user answers the first plan again. */
  readonly idempotency_key?: string | undefined;
  /** Tells plans of one key apart. */
  readonly fingerprint?: string | undefined;
}

export interface EnqueuedPlan {
  readonly plan: PlanRow;
  /** In the order of the steps. */
  readonly tasks: TaskRow[];
  /** False when the idempotency key was known: nothing was changed. */
  readonly created: boolean;
}

/**
 * Put all steps of a plan into the queue, with their holds and first events, in one transaction. Those that come
 * after others are blocked until these have completed.
 * @throws AppError as `enqueueTask` does, and InvalidParams for steps that do not fit together.
 */
export async function enqueuePlan(db: Db, plan: NewPlan): Promise<EnqueuedPlan> {
  const { id, user_id, project_id, steps, idempotency_key, fingerprint, continues } = plan;
  const budget = microcredits("budget", plan.budget);
  checkSteps(steps);
  refuseNul({ idempotency_key, project_id, continues });
  for (const { prompt, model, agent, id: step } of steps) refuseNul({ step, prompt, model, agent });
  return inTransaction(db, async (trx) => {
    const gate = await lockGate(trx, user_id, project_id);
    if (idempotency_key !== undefined) {
      const known = await findPlanByKey(trx, user_id, idempotency_key);
      if (known !== undefined) {
        return { plan: known, tasks: await planTasks(trx, known.id), created: false };
      }
      if ((await findByKey(trx, user_id, idempotency_key)) !== undefined) throw keyTaken("a task");
    }
    if (continues !== undefined) await checkContinues(trx, plan, continues);
    await checkPending(trx, user_id, steps.length, plan.pendingLimit);
    const held = shares(Math.min(budget, leastOf(gate, steps.length)), steps.length);
    const row = await insertPlan(trx, { id, user_id, project_id, fingerprint, idempotency_key });
    const tasks: TaskRow[] = [];
    for (const [nth, step] of steps.entries()) {
      const place = { plan_id: id, step: step.id, nth };
      const blocked = (step.after?.length ?? 0) > 0;
      const { idempotency_key: _, ...shared } = plan;
      const own = { ...step, id: step.task_id, held: held[nth] ?? 0, place, blocked };
      tasks.push(await insertTask(trx, { ...shared, ...own }));
    }
    await insertOrder(trx, steps);
    return { plan: row, tasks, created: true };
  });
}

export async function insertPlan(
  trx: Db,
  plan: Pick<NewPlan, "id" | "user_id" | "project_id" | "fingerprint" | "idempotency_key">,
): Promise<PlanRow> {
  const { fingerprint = null, idempotency_key = null, ...row } = plan;
  return trx
    .insertInto("plans")
    .values({ ...row, fingerprint, idempotency_key })
    .returningAll()
    .executeTakeFirstOrThrow();
}

/** Write down which task comes after which. */
export async function insertOrder(
  trx: Db,
  steps: readonly (StepOrder & { readonly task_id: string })[],
): Promise<void> {
  const ids = new Map(steps.map(({ id, task_id }) => [id, task_id]));
  const pairs = steps.flatMap(({ task_id, after = [] }) =>
    after.flatMap((name) => {
      const depends_on = ids.get(name);
      return depends_on === undefined ? [] : [{ task_id, depends_on }];
    }),
  );
  await sql`
    INSERT INTO task_dependencies (task_id, depends_on)
    SELECT * FROM unnest(${pairs.map(({ task_id }) => task_id)}::text[],
      ${pairs.map(({ depends_on }) => depends_on)}::text[])
    ON CONFLICT DO NOTHING`.execute(trx);
}

/** Equal parts of a whole, the first ones one more where it does not divide. */
export function shares(whole: number, parts: number): number[] {
  const least = Math.floor(whole / parts);
  return Array.from({ length: parts }, (_, nth) => least + (nth < whole % parts ? 1 : 0));
}
