import { agents } from "#agents";
import type { TaskRow } from "#database";
import { getOwnProject } from "#database/projects/index.ts";
import {
  type Canceller,
  getPlan,
  getTask,
  listTasks,
  pauseTask,
  requestCancel,
  requestCancelPlan,
  resumeTask,
} from "#database/queue/index.ts";
import { AppError, type MethodParams } from "#schemas";
import { type Context, connectionOf, type HandlersOf } from "../handler.ts";
import { dispatch, wrongParam } from "./agent-dispatch.ts";
import { planSummary, planView, taskViews } from "./agent-views.ts";

export const agentHandlers: HandlersOf<"agent."> = {
  "agent.dispatch": dispatch,

  "agent.status": async (context, { task_id }) => {
    const task = await ownTask(context, task_id);
    const [view] = await taskViews(context, [task]);
    if (view === undefined) throw new AppError("NotFound", `There is no task ${task_id}.`);
    return view;
  },

  "agent.plan": async (context, { plan_id }) =>
    planView(context, await getPlan(context.database.db, plan_id, context.caller.user_id)),

  "agent.cancel": cancel,

  "agent.pause": async ({ caller, database }, { task_id }) =>
    pausedView(await pauseTask(database.db, caller.user_id, task_id)),

  "agent.resume": async ({ caller, database }, { task_id }) =>
    pausedView(await resumeTask(database.db, caller.user_id, task_id)),

  "agent.list": async () => ({
    agents: agents.map(({ name, description, runners, setup, repairRounds }) => {
      const { edit, bash } = setup.permission;
      // What reaches a host are the programs it runs.
      const permissions = { edit: edit === "allow", bash: bash === "allow", network: bash === "allow" };
      return { name, description, runners: [...runners], permissions, repair_rounds: repairRounds };
    }),
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

async function cancel({ caller, database }: Context, { task_id, plan_id }: MethodParams<"agent.cancel">) {
  const by: Canceller = caller.role === "admin" ? "admin" : { user_id: caller.user_id };
  if (task_id !== undefined && plan_id === undefined) {
    const { state } = await requestCancel(database.db, by, task_id);
    return { task_id, state };
  }
  if (plan_id !== undefined && task_id === undefined) {
    return planSummary(plan_id, await requestCancelPlan(database.db, by, plan_id));
  }
  throw wrongParam("params", "Give either task_id or plan_id.", "One of the two.");
}

function pausedView({ id, state, paused_at }: TaskRow) {
  return { task_id: id, state, paused: paused_at !== null };
}

/** Prompts and results are their owner's alone: an administrator may end a task, not read it. */
function ownTask({ caller, database }: Context, task_id: string): Promise<TaskRow> {
  return getTask(database.db, task_id, caller.user_id);
}
