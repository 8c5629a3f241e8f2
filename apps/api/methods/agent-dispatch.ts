import { createHash } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import { agents, findAgent } from "#agents";
import type { PlanRow, TaskRow } from "#database";
import { resolveProvider } from "#database/accounts/provider-resolution.ts";
import { getOwnProject } from "#database/projects/index.ts";
import {
  checkSteps,
  enqueuePlan,
  enqueueTask,
  findByKey,
  findPlanByKey,
  planTasks,
} from "#database/queue/index.ts";
import { newId } from "#platform/ids.ts";
import { AppError, type MethodParams } from "#schemas";
import type { Context } from "../handler.ts";
import { nearest } from "../rpc/suggest.ts";
import { places, planSummary } from "./agent-views.ts";

type Params = MethodParams<"agent.dispatch">;
type Steps = NonNullable<Params["plan"]>["steps"];

/** Queue one task or a plan of several. */
export function dispatch(context: Context, params: Params) {
  const { agent, prompt, plan } = params;
  if (plan !== undefined && agent === undefined && prompt === undefined) {
    return dispatchPlan(context, params, plan.steps);
  }
  if (plan === undefined && agent !== undefined && prompt !== undefined) {
    return dispatchTask(context, params, { agent, prompt });
  }
  throw wrongParam("params", "Give either agent and prompt, or a plan.", "One of the two forms.");
}

/** What a task is for that a dispatch alone cannot say. */
export interface Purpose {
  readonly agent: string;
  readonly prompt: string;
  /** The change whose conflicts it is to resolve. */
  readonly resolves?: string;
}

/** Queue one task. @throws AppError as `agent.dispatch`. */
export async function dispatchTask(
  context: Context,
  params: Omit<Params, "agent" | "prompt" | "plan">,
  { agent: name, prompt, resolves }: Purpose,
) {
  const { caller, database, config } = context;
  const { project_id, model, priority, idempotency_key, continues, context: looksAt } = params;
  const { may_plan, agent_config } = params;
  const agent = agentNamed(name, "params.agent");
  const runner = runnerFor(context, agent, params.runner, "params.runner");
  const network = granted(context, params.network);
  checkReach(runner, { network, agent_config });
  const wanted = { agent: agent.name, runner, project_id, prompt, model, network, may_plan, agent_config };
  const origin = { continues: continues ?? null, context: looksAt ?? null, resolves: resolves ?? null };
  const identity = { ...wanted, ...origin };
  if (idempotency_key !== undefined) {
    // A repeat gets the first answer, also when the project or the key of the provider has gone since.
    const known = await findByKey(database.db, caller.user_id, idempotency_key);
    if (known !== undefined) return repeated(context, known, identity);
  }
  const budget = budgetOf(context, params, 1);
  await getOwnProject(database.db, project_id, caller.user_id);
  await checkModels(context, [model]);
  const { task, created } = await database.transaction((trx) =>
    enqueueTask(trx, {
      id: newId("task"),
      user_id: caller.user_id,
      ...wanted,
      ...{ continues, context: looksAt, resolves, priority, budget, idempotency_key },
      max_attempts: config.queue.attempts,
      pendingLimit: config.queue.pendingPerUser,
    }),
  );
  if (!created) return repeated(context, task, identity);
  context.log.info({ task_id: task.id }, "task queued");
  return queued(context, task);
}

async function dispatchPlan(context: Context, params: Params, steps: Steps) {
  const { caller, database, config } = context;
  const { project_id, continues, context: looksAt, may_plan, agent_config, idempotency_key } = params;
  checkSteps(steps, "params.plan.steps");
  const made = steps.map((step, nth) => stepOf(context, params, step, `params.plan.steps[${nth}]`));
  const network = granted(context, params.network);
  for (const { runner } of made) checkReach(runner, { network, agent_config });
  const { idempotency_key: _, ...content } = params;
  const fingerprint = createHash("sha256").update(JSON.stringify(content)).digest("hex");
  if (idempotency_key !== undefined) {
    const known = await findPlanByKey(database.db, caller.user_id, idempotency_key);
    if (known !== undefined) {
      return repeatedPlan(context, known, fingerprint, await planTasks(database.db, known.id));
    }
  }
  const budget = budgetOf(context, params, steps.length);
  await getOwnProject(database.db, project_id, caller.user_id);
  await checkModels(
    context,
    made.map(({ model }) => model),
  );
  const { plan, tasks, created } = await database.transaction((trx) =>
    enqueuePlan(trx, {
      id: newId("plan"),
      user_id: caller.user_id,
      ...{ project_id, continues, context: looksAt, network, may_plan, agent_config, budget },
      ...{ idempotency_key, fingerprint },
      steps: made,
      max_attempts: config.queue.attempts,
      pendingLimit: config.queue.pendingPerUser,
    }),
  );
  if (!created) return repeatedPlan(context, plan, fingerprint, tasks);
  context.log.info({ plan_id: plan.id, steps: tasks.length }, "plan queued");
  return queuedPlan(context, plan.id, tasks);
}

function stepOf(context: Context, params: Params, step: Steps[number], path: string) {
  const agent = agentNamed(step.agent, `${path}.agent`);
  return {
    id: step.id,
    after: step.after,
    task_id: newId("task"),
    agent: agent.name,
    runner: runnerFor(context, agent, step.runner ?? params.runner, `${path}.runner`),
    model: step.model ?? params.model,
    prompt: step.prompt,
    priority: step.priority ?? params.priority,
  };
}

/** Refused now rather than after a wait in the queue; the run itself resolves again. */
async function checkModels(context: Context, models: readonly string[]): Promise<void> {
  const { caller, database, config, secrets } = context;
  for (const model of new Set(models)) {
    const wanted = { secrets, provider: config.provider, user_id: caller.user_id, model };
    await resolveProvider(database.db, wanted);
  }
}

async function queued(context: Context, task: TaskRow) {
  return { task_id: task.id, state: task.state, ...(await places(context, [task])).get(task.id) };
}

async function queuedPlan(context: Context, plan_id: string, tasks: readonly TaskRow[]) {
  const [first] = tasks;
  const place = first === undefined ? undefined : (await places(context, [first])).get(first.id);
  return { ...planSummary(plan_id, tasks), ...place };
}

/** The first task of an idempotency key. @throws AppError Conflict when it was for something else. */
function repeated(context: Context, task: TaskRow, wanted: Partial<TaskRow>) {
  const different = Object.entries(wanted).some(
    ([name, value]) => !isDeepStrictEqual(task[name as keyof TaskRow], value),
  );
  if (different) throw otherParams("a task", { task_id: task.id });
  return queued(context, task);
}

function repeatedPlan(context: Context, plan: PlanRow, fingerprint: string, tasks: readonly TaskRow[]) {
  if (plan.fingerprint !== fingerprint) throw otherParams("a plan", { plan_id: plan.id });
  return queuedPlan(context, plan.id, tasks);
}

/** A key used again for something else is a mistake of the caller's that must not look like success. */
function otherParams(of: string, whose: Readonly<Record<string, string>>): AppError {
  return new AppError("Conflict", `This idempotency key belongs to ${of} with other params.`, {
    hint: "Use a new key for something new.",
    ...whose,
  });
}

function agentNamed(name: string, path: string) {
  const agent = findAgent(name);
  if (agent !== undefined) return agent;
  const names = agents.map((known) => known.name);
  const meant = nearest(name, names);
  const hint = meant === undefined ? `Known: ${names.join(", ")}.` : `Did you mean "${meant}"?`;
  throw wrongParam(path, `There is no agent "${name}".`, hint);
}

function runnerFor(
  { config }: Context,
  agent: ReturnType<typeof agentNamed>,
  wanted: Params["runner"],
  path: string,
): string {
  const { defaultRunner } = config.run;
  if (wanted === undefined) return agent.runners.includes(defaultRunner) ? defaultRunner : agent.runners[0];
  if (agent.runners.includes(wanted)) return wanted;
  throw wrongParam(path, `${agent.name} cannot be run by ${wanted}.`, agent.runners.join(", "));
}

/** The hosts a task's programs may reach. @throws AppError as for programs that people run by hand. */
function granted({ workbench: { grants } }: Context, network: Params["network"]): string[] {
  if (grants.rules(network) === null) return [];
  return network === true ? [...grants.hosts] : [...(network || [])];
}

/** What only one of the runners can give. @throws AppError InvalidParams. */
function checkReach(
  runner: string,
  { network, agent_config }: { network: readonly string[]; agent_config: boolean },
) {
  if (runner === "opencode" && network.length > 0) {
    throw wrongParam("params.network", "OpenCode's sandbox has no network.", 'Use "runner": "native".');
  }
  if (runner !== "opencode" && agent_config) {
    const hint = 'Use "runner": "opencode".';
    throw wrongParam("params.agent_config", "Only OpenCode loads a project's agent configuration.", hint);
  }
}

/** What all tasks together may cost: never more than the server allows for as many. */
function budgetOf(
  { config }: Context,
  { budget_microcredits }: Pick<Params, "budget_microcredits">,
  tasks: number,
): number {
  const most = config.billing.taskBudget * tasks;
  if (budget_microcredits === undefined || budget_microcredits <= most) return budget_microcredits ?? most;
  const hint = `At most ${most} micro-credits.`;
  throw wrongParam("params.budget_microcredits", "The budget is more than this server allows.", hint);
}

/** @throws the refusal of a param, naming it. */
export function wrongParam(path: string, message: string, hint: string): AppError {
  return new AppError("InvalidParams", message, { hint, issues: [{ path, message }] });
}
