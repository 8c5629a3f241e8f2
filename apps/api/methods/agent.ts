import { agents, findAgent } from "#agents";
import type { TaskRow } from "#database";
import { resolveProvider } from "#database/accounts/provider-resolution.ts";
import { getOwnProject } from "#database/projects/index.ts";
import {
  enqueueTask,
  findByKey,
  getTask,
  listTasks,
  queueView,
  requestCancel,
  usageOf,
} from "#database/queue/index.ts";
import { newId } from "#platform/ids.ts";
import { AppError, isTerminal, type MethodParams, type TaskView } from "#schemas";
import { type Context, connectionOf, type HandlersOf } from "../handler.ts";
import { nearest } from "../rpc/suggest.ts";

export const agentHandlers: HandlersOf<"agent."> = {
  "agent.dispatch": dispatch,

  "agent.status": async (context, { task_id }) => {
    const task = await ownTask(context, task_id);
    const [view] = await taskViews(context, [task]);
    if (view === undefined) throw new AppError("NotFound", `There is no task ${task_id}.`);
    return view;
  },

  "agent.cancel": async ({ caller, database }, { task_id }) => {
    const by = caller.role === "admin" ? "admin" : { user_id: caller.user_id };
    const { state } = await requestCancel(database.db, by, task_id);
    return { task_id, state };
  },

  "agent.list": async () => ({
    agents: agents.map(({ name, description, runners }) => ({ name, description, runners: [...runners] })),
  }),

  "agent.history": async (context, { project_id, state, cursor, limit }) => {
    const { caller, database } = context;
    const page = await listTasks(database.db, { user_id: caller.user_id, project_id, state, cursor, limit });
    // The record outlives its project, so only somebody without any record there learns whether it is theirs.
    if (page.tasks.length === 0 && project_id !== undefined) {
      await getOwnProject(database.db, project_id, caller.user_id);
    }
    const tasks = await taskViews(context, page.tasks);
    return page.next_cursor === undefined ? { tasks } : { tasks, next_cursor: page.next_cursor };
  },

  "agent.subscribe": async (context, { task_id, after_seq }) => {
    const { state, last_seq } = await ownTask(context, task_id);
    connectionOf(context).subscribe(task_id, after_seq);
    return { task_id, state, last_seq };
  },

  "agent.unsubscribe": async (context, { task_id }) => {
    connectionOf(context).unsubscribe(task_id);
    return { task_id };
  },
};

async function dispatch(context: Context, params: MethodParams<"agent.dispatch">) {
  const { caller, database, config, secrets } = context;
  const { project_id, prompt, model, priority, idempotency_key } = params;
  const { agent, runner } = agentAndRunner(params);
  const wanted = { agent, runner, project_id, prompt, model };
  if (idempotency_key !== undefined) {
    // A repeat gets the first answer, also when the project or the key of the provider has gone since.
    const known = await findByKey(database.db, caller.user_id, idempotency_key);
    if (known !== undefined) return repeated(context, known, wanted);
  }
  await getOwnProject(database.db, project_id, caller.user_id);
  // Refused now rather than after a wait in the queue; the run itself resolves again.
  await resolveProvider(database.db, { secrets, provider: config.provider, user_id: caller.user_id, model });
  const { task, created } = await database.transaction((trx) =>
    enqueueTask(trx, {
      id: newId("task"),
      user_id: caller.user_id,
      ...wanted,
      priority,
      max_attempts: config.queue.attempts,
      budget: config.billing.taskBudget,
      pendingLimit: config.queue.pendingPerUser,
      idempotency_key,
    }),
  );
  if (!created) return repeated(context, task, wanted);
  context.log.info({ task_id: task.id }, "task queued");
  return queued(context, task);
}

async function queued(context: Context, task: TaskRow) {
  return { task_id: task.id, state: task.state, ...(await placeOf(context, task)) };
}

/** The first task of an idempotency key. @throws AppError Conflict when it was for something else. */
function repeated(context: Context, task: TaskRow, wanted: Partial<TaskRow>) {
  refuseOtherTask(task, wanted);
  return queued(context, task);
}

function agentAndRunner(params: MethodParams<"agent.dispatch">): { agent: string; runner: string } {
  const agent = findAgent(params.agent);
  if (agent === undefined) {
    const names = agents.map(({ name }) => name);
    const meant = nearest(params.agent, names);
    const hint = meant === undefined ? `Known: ${names.join(", ")}.` : `Did you mean "${meant}"?`;
    throw wrongParam("params.agent", `There is no agent "${params.agent}".`, hint);
  }
  const runner = params.runner ?? agent.runners[0];
  if (!agent.runners.includes(runner)) {
    throw wrongParam("params.runner", `${agent.name} cannot be run by ${runner}.`, agent.runners.join(", "));
  }
  return { agent: agent.name, runner };
}

function wrongParam(path: string, message: string, hint: string): AppError {
  return new AppError("InvalidParams", message, { hint, issues: [{ path, message }] });
}

/** A key used again for something else is a mistake of the caller's that must not look like success. */
function refuseOtherTask(task: TaskRow, wanted: Partial<TaskRow>): void {
  const different = Object.entries(wanted).some(([name, value]) => task[name as keyof TaskRow] !== value);
  if (!different) return;
  throw new AppError("Conflict", "This idempotency key belongs to a task with other params.", {
    hint: "Use a new key for a new task.",
    task_id: task.id,
  });
}

/** Prompts and results are their owner's alone: an administrator may end a task, not read it. */
function ownTask({ caller, database }: Context, task_id: string): Promise<TaskRow> {
  return getTask(database.db, task_id, caller.user_id);
}

async function placeOf(context: Context, task: TaskRow) {
  if (task.state !== "pending") return {};
  return (await places(context, [task])).get(task.id) ?? {};
}

function places({ database, config }: Context, tasks: readonly TaskRow[]) {
  const waiting = tasks.filter(({ state }) => state === "pending").map(({ id }) => id);
  const { maxConcurrent, perUser, secondsBetweenRequests } = config.queue;
  return queueView(database.db, waiting, {
    capacity: maxConcurrent,
    per_user: perUser,
    seconds_between: secondsBetweenRequests,
  });
}

/** Tasks as callers see them, with two statements however many they are. */
async function taskViews(context: Context, tasks: readonly TaskRow[]): Promise<TaskView[]> {
  const ids = tasks.map(({ id }) => id);
  const [usage, place] = await Promise.all([usageOf(context.database.db, ids), places(context, tasks)]);
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
    ...(task.change_id === null ? {} : { change_id: task.change_id }),
    ...(task.error === null || !isTerminal(task.state) ? {} : { error: task.error }),
    usage: usage.get(task.id) ?? { input_tokens: 0, output_tokens: 0, cost_microcredits: 0 },
    created_at: task.created_at.toISOString(),
    ...(task.started_at === null ? {} : { started_at: task.started_at.toISOString() }),
    ...(task.finished_at === null ? {} : { finished_at: task.finished_at.toISOString() }),
  }));
}
