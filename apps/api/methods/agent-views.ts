import type { TaskRow } from "#database";
import { planTasks, queueView, stepsBefore, usageOf } from "#database/queue/index.ts";
import { isTerminal, type MethodResult, type TaskState, type TaskView, type Usage } from "#schemas";
import type { Context } from "../handler.ts";

/** What is told of tasks is asked with this; prompts and results are their owner's alone. */
type Asking = Pick<Context, "database" | "config">;

const NOTHING_USED: Usage = { input_tokens: 0, output_tokens: 0, cost_microcredits: 0 };

/** Tasks as callers see them, with a few statements however many they are. */
export async function taskViews(context: Asking, tasks: readonly TaskRow[]): Promise<TaskView[]> {
  const { db } = context.database;
  const ids = tasks.map(({ id }) => id);
  const blocked = tasks.filter((task) => task.blocked).map(({ id }) => id);
  const [usage, place, before] = await Promise.all([
    usageOf(db, ids),
    places(context, tasks),
    stepsBefore(db, blocked),
  ]);
  return tasks.map((task) => ({
    task_id: task.id,
    state: task.state,
    ...place.get(task.id),
    agent: task.agent,
    runner: task.runner,
    model: task.model,
    project_id: task.project_id,
    prompt: task.prompt,
    attempt: task.attempt,
    ...placement(task),
    ...(task.blocked
      ? { waits_for: (before.get(task.id) ?? []).flatMap(({ step, completed }) => (completed ? [] : [step])) }
      : {}),
    budget_microcredits: task.budget_microcredits,
    ...outcome(task),
    usage: usage.get(task.id) ?? NOTHING_USED,
    created_at: task.created_at.toISOString(),
    ...(task.started_at === null ? {} : { started_at: task.started_at.toISOString() }),
    ...(task.finished_at === null ? {} : { finished_at: task.finished_at.toISOString() }),
  }));
}

/** What it belongs to, goes on from and was granted. */
function placement(task: TaskRow) {
  return {
    ...paused(task),
    ...(task.plan_id === null ? {} : { plan_id: task.plan_id }),
    ...(task.step === null ? {} : { step: task.step }),
    ...(task.continues === null ? {} : { continues: task.continues }),
    ...(task.builds_on.length === 0 ? {} : { builds_on: task.builds_on }),
    ...(task.resolves === null ? {} : { resolves: task.resolves }),
    ...(task.network.length === 0 ? {} : { network: task.network }),
    ...(task.may_plan ? { may_plan: true as const } : {}),
    ...(task.agent_config ? { agent_config: true as const } : {}),
  };
}

function paused(task: TaskRow): { paused?: true } {
  return task.paused_at === null ? {} : { paused: true };
}

function outcome(task: TaskRow) {
  return {
    ...(task.change_id === null ? {} : { change_id: task.change_id }),
    ...(task.error === null || !isTerminal(task.state) ? {} : { error: task.error }),
  };
}

/** Where waiting tasks stand in the line, by id. */
export function places({ database, config }: Asking, tasks: readonly TaskRow[]) {
  const waiting = tasks.filter(({ state }) => state === "pending").map(({ id }) => id);
  const { maxConcurrent, perUser, secondsBetweenRequests } = config.queue;
  return queueView(database.db, waiting, {
    capacity: maxConcurrent,
    per_user: perUser,
    seconds_between: secondsBetweenRequests,
  });
}

/** A plan's steps with what each waits for and what came of it. */
export async function planView(
  context: Asking,
  plan: { readonly id: string; readonly project_id: string; readonly created_at: Date },
): Promise<MethodResult<"agent.plan">> {
  const { db } = context.database;
  const tasks = await planTasks(db, plan.id);
  const ids = tasks.map(({ id }) => id);
  const [usage, place, before] = await Promise.all([
    usageOf(db, ids),
    places(context, tasks),
    stepsBefore(db, ids),
  ]);
  return {
    plan_id: plan.id,
    project_id: plan.project_id,
    state: planState(tasks.map(({ state }) => state)),
    created_at: plan.created_at.toISOString(),
    usage: sumOf([...usage.values()]),
    steps: tasks.map((task) => ({
      id: task.step ?? task.id,
      task_id: task.id,
      state: task.state,
      ...place.get(task.id),
      agent: task.agent,
      after: (before.get(task.id) ?? []).map(({ step }) => step),
      ...paused(task),
      ...outcome(task),
    })),
  };
}

/** A plan in short, as its dispatch and its end answer it. */
export function planSummary(plan_id: string, tasks: readonly TaskRow[]) {
  return {
    plan_id,
    task_id: tasks[0]?.id ?? "",
    state: planState(tasks.map(({ state }) => state)),
    steps: tasks.map(({ id, step, state }) => ({ id: step ?? id, task_id: id, state })),
  };
}

/** Where a plan stands as a whole. */
export function planState(states: readonly TaskState[]): TaskState {
  if (states.every((state) => state === "pending")) return "pending";
  if (!states.every(isTerminal)) return "running";
  // A step that fails takes those after it along, which end cancelled.
  return (["failed", "cancelled"] as const).find((state) => states.includes(state)) ?? "completed";
}

function sumOf(usages: readonly Usage[]): Usage {
  return usages.reduce(
    (sum, each) => ({
      input_tokens: sum.input_tokens + each.input_tokens,
      output_tokens: sum.output_tokens + each.output_tokens,
      cost_microcredits: sum.cost_microcredits + each.cost_microcredits,
    }),
    NOTHING_USED,
  );
}
