import { sql } from "kysely";
import { newId } from "#platform/ids.ts";
import { AppError, type PlanStep } from "#schemas";
import { lockFunds } from "../ledger/budgets.ts";
import type { Db, TaskRow } from "../schema.ts";
import { checkPending } from "./admit.ts";
import { insertTask } from "./insert.ts";
import { insertOrder, insertPlan, shares } from "./plan.ts";
import { checkSteps } from "./steps.ts";

/** Name of the task that made a plan out of nothing, as that plan's first step. */
const PLANNER = "plan";

/** Steps an agent wants done after its own task. Runner, model and priority are its own where none are named. */
export interface AgentPlan {
  readonly steps: readonly PlanStep[];
  /** Waiting tasks one user may have. */
  readonly pendingLimit: number;
}

/**
 * Whether a running task may have these steps made, paid for by what is left of its own budget.
 * @throws AppError Forbidden, InvalidParams (they do not fit together), QuotaExceeded, BudgetExceeded.
 */
export async function admitAgentPlan(trx: Db, task: TaskRow, plan: AgentPlan): Promise<void> {
  if (!task.may_plan) {
    throw new AppError("Forbidden", "This task may not make a plan.", {
      hint: "Dispatch it with may_plan.",
    });
  }
  checkSteps(plan.steps);
  await lockFunds(trx, task.user_id);
  await checkPending(trx, task.user_id, plan.steps.length, plan.pendingLimit);
  if (task.budget_left >= plan.steps.length) return;
  throw new AppError("BudgetExceeded", "What is left of the task's budget does not cover its plan.", {
    available_microcredits: task.budget_left,
    required_microcredits: plan.steps.length,
    hint: "Dispatch the steps as a plan of your own.",
  });
}

/**
 * Make an agent's steps tasks of its own task's plan: all come after it, and whatever came after it comes after
 * them too. Their holds are what it gave back.
 * @param task as it was before its end.
 * @returns the plan they belong to.
 */
export async function insertAgentPlan(trx: Db, task: TaskRow, { steps }: AgentPlan): Promise<string> {
  const planner = await joinPlan(trx, task);
  const { next } = await trx
    .selectFrom("tasks")
    .select(sql<number>`max(step_nth) + 1`.as("next"))
    .where("plan_id", "=", planner.plan_id)
    .executeTakeFirstOrThrow();
  const held = shares(task.budget_left, steps.length);
  const made = steps.map((step) => ({ ...step, task_id: newId("task") }));
  const { user_id, project_id, max_attempts, network } = task;
  for (const [nth, step] of made.entries()) {
    await insertTask(trx, {
      ...{
        user_id,
        project_id,
        max_attempts,
        network,
        id: step.task_id,
        agent: step.agent,
        prompt: step.prompt,
      },
      ...{ runner: step.runner ?? task.runner, model: step.model ?? task.model },
      priority: step.priority ?? task.priority,
      held: held[nth] ?? 0,
      context: task.context ?? undefined,
      place: { plan_id: planner.plan_id, step: `${planner.step}.${step.id}`, nth: next + nth },
      blocked: true,
    });
  }
  await insertOrder(trx, made);
  await putBetween(trx, task.id, made);
  return planner.plan_id;
}

/** The plan a task belongs to; one of its own when it had none. */
async function joinPlan(trx: Db, task: TaskRow): Promise<{ plan_id: string; step: string }> {
  const { id, user_id, project_id } = task;
  if (task.plan_id !== null) return { plan_id: task.plan_id, step: task.step ?? PLANNER };
  const plan = await insertPlan(trx, { id: newId("plan"), user_id, project_id });
  const joined = { plan_id: plan.id, step: PLANNER };
  await trx
    .updateTable("tasks")
    .set({ ...joined, step_nth: 0 })
    .where("id", "=", id)
    .execute();
  return joined;
}

async function putBetween(
  trx: Db,
  planner: string,
  steps: readonly (PlanStep & { readonly task_id: string })[],
): Promise<void> {
  const needed = new Set(steps.flatMap(({ after = [] }) => after));
  const first = steps.filter(({ after = [] }) => after.length === 0).map(({ task_id }) => task_id);
  const last = steps.filter(({ id }) => !needed.has(id)).map(({ task_id }) => task_id);
  await sql`
    INSERT INTO task_dependencies (task_id, depends_on)
    SELECT d.task_id, l FROM task_dependencies d, unnest(${last}::text[]) l WHERE d.depends_on = ${planner}
    UNION ALL
    SELECT f, ${planner} FROM unnest(${first}::text[]) f`.execute(trx);
}
