import { z } from "zod";
import {
  taskContextSchema,
  taskErrorSchema,
  taskStateSchema,
  usageSchema,
  waitReasonSchema,
} from "../events.ts";
import { idSchema } from "../ids.ts";
import { defineMethod } from "./method.ts";
import { networkSchema } from "./run.ts";

export const MAX_PROMPT_CHARS = 200_000;
/** What a column of events can count to. */
export const MAX_SEQ = 2_147_483_647;
export const runnerSchema = z.enum(["native", "opencode"]);

export const MAX_PLAN_STEPS = 20;
const prioritySchema = z.number().int().min(1).max(9);
const promptSchema = z.string().trim().min(1).max(MAX_PROMPT_CHARS);
const agentNameSchema = z.string().min(1).max(64);
const modelNameSchema = z.string().min(1).max(200);

/** A step's name within its plan. */
const stepIdSchema = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/, "Letters, digits, _ and -, 64 at most.");

/** One task of a plan; what it does not name is the plan's. */
export const planStepSchema = z.strictObject({
  id: stepIdSchema,
  agent: agentNameSchema,
  prompt: promptSchema,
  /** Steps that must have completed before it starts; it builds on what they changed. */
  after: z.array(stepIdSchema).max(MAX_PLAN_STEPS).optional(),
  model: modelNameSchema.optional(),
  runner: runnerSchema.optional(),
  priority: prioritySchema.optional(),
});
export type PlanStep = z.infer<typeof planStepSchema>;

const queueView = {
  task_id: idSchema,
  state: taskStateSchema,
  /** 1 = next to start; absent for what is not in the line. */
  position: z.number().int().positive().optional(),
  /** Why it waits; absent when it does not. */
  reason: waitReasonSchema.optional(),
};

/** A plan's steps as its dispatch and its end answer them. */
const stepStates = z.array(z.object({ id: z.string(), task_id: idSchema, state: taskStateSchema }));

/** Of a plan, `task_id` is its first task and `state` where it stands as a whole. */
const taskOrPlan = z.object({
  task_id: idSchema,
  state: taskStateSchema,
  plan_id: idSchema.optional(),
  steps: stepStates.optional(),
});

const pausedView = z.object({ task_id: idSchema, state: taskStateSchema, paused: z.boolean() });

const taskView = z.object({
  ...queueView,
  agent: z.string(),
  runner: z.string(),
  model: z.string(),
  project_id: idSchema,
  prompt: z.string(),
  attempt: z.number().int(),
  /** It rests until it is resumed. */
  paused: z.literal(true).optional(),
  plan_id: idSchema.optional(),
  /** Its name within the plan. */
  step: z.string().optional(),
  /** Steps it waits for. */
  waits_for: z.array(z.string()).optional(),
  /** The task whose session goes on here. */
  continues: idSchema.optional(),
  /** Changes whose files lay over the project's when it started. */
  builds_on: z.array(idSchema).optional(),
  /** The change whose conflicts it resolves. */
  resolves: idSchema.optional(),
  /** Hosts its programs may reach. */
  network: z.array(z.string()).optional(),
  may_plan: z.literal(true).optional(),
  agent_config: z.literal(true).optional(),
  /** Its ceiling, set aside when it was queued. */
  budget_microcredits: z.number().int(),
  change_id: idSchema.optional(),
  error: taskErrorSchema.optional(),
  usage: usageSchema,
  created_at: z.iso.datetime(),
  started_at: z.iso.datetime().optional(),
  finished_at: z.iso.datetime().optional(),
});
export type TaskView = z.infer<typeof taskView>;

const exampleTask: z.input<typeof taskView> = {
  task_id: "tsk_01",
  state: "completed",
  agent: "CodeAgent",
  runner: "opencode",
  model: "demo",
  project_id: "prj_01",
  prompt: "Add a farewell function.",
  attempt: 1,
  budget_microcredits: 1_000_000,
  change_id: "chg_01",
  usage: { input_tokens: 8120, output_tokens: 214, cost_microcredits: 8976 },
  created_at: "2026-11-20T10:00:00.000Z",
  started_at: "2026-11-20T10:00:00.004Z",
  finished_at: "2026-11-20T10:00:03.120Z",
};

export const agentMethods = {
  "agent.dispatch": defineMethod({
    summary:
      "Queue a prompt for an agent, or a plan of several; what comes of each is a change to review. What is said beside a plan holds for every step.",
    access: "developer",
    params: z.strictObject({
      /** With `prompt`, and without `plan`. */
      agent: agentNameSchema.optional(),
      prompt: promptSchema.optional(),
      /** Instead of `agent` and `prompt`: tasks some of which come after others. */
      plan: z.strictObject({ steps: z.array(planStepSchema).min(1).max(MAX_PLAN_STEPS) }).optional(),
      project_id: idSchema,
      model: modelNameSchema,
      runner: runnerSchema.optional(),
      priority: prioritySchema.default(5),
      /** A task of the same project that has ended: its session goes on. */
      continues: idSchema.optional(),
      /** What the user looks at. */
      context: taskContextSchema.optional(),
      /** For programs of the native runner. */
      network: networkSchema.default(false),
      /** Let the project's own configuration for agents' programs in (OpenCode's plugins, tools, agents, servers). */
      agent_config: z.boolean().default(false),
      /** Ceiling of what it may cost, of all steps of a plan together; not given: the server's. */
      budget_microcredits: z.number().int().min(1).optional(),
      /** The agent may make a plan of further steps, paid from the same budget. */
      may_plan: z.boolean().default(false),
      /** The same key of the same user answers the first task or plan again instead of making another. */
      idempotency_key: z.string().min(1).max(200).optional(),
    }),
    result: z.object({ ...queueView, ...taskOrPlan.shape }),
    errors: [
      "NotFound",
      "Conflict",
      "Forbidden",
      "InsufficientBalance",
      "BudgetExceeded",
      "NoProviderKey",
      "ModelNotFound",
      "QuotaExceeded",
    ],
    example: {
      params: {
        plan: {
          steps: [
            { id: "code", agent: "CodeAgent", prompt: "Add a farewell function." },
            { id: "test", agent: "TestAgent", prompt: "Test the farewell function.", after: ["code"] },
          ],
        },
        project_id: "prj_01",
        model: "demo",
      },
      result: {
        plan_id: "pln_01",
        task_id: "tsk_01",
        state: "pending",
        position: 1,
        steps: [
          { id: "code", task_id: "tsk_01", state: "pending" },
          { id: "test", task_id: "tsk_02", state: "pending" },
        ],
      },
    },
  }),
  "agent.plan": defineMethod({
    summary: "A plan's steps: where each stands, what it waits for and what came of it.",
    access: "viewer",
    params: z.strictObject({ plan_id: idSchema }),
    result: z.object({
      plan_id: idSchema,
      project_id: idSchema,
      /** `running` until every step has ended, `pending` before the first has started. */
      state: taskStateSchema,
      created_at: z.iso.datetime(),
      usage: usageSchema,
      steps: z.array(
        z.object({
          id: z.string(),
          ...queueView,
          agent: z.string(),
          after: z.array(z.string()),
          paused: z.literal(true).optional(),
          change_id: idSchema.optional(),
          error: taskErrorSchema.optional(),
        }),
      ),
    }),
    errors: ["NotFound"],
    example: {
      params: { plan_id: "pln_01" },
      result: {
        plan_id: "pln_01",
        project_id: "prj_01",
        state: "running",
        created_at: "2026-11-20T10:00:00.000Z",
        usage: { input_tokens: 8120, output_tokens: 214, cost_microcredits: 8976 },
        steps: [
          {
            id: "code",
            task_id: "tsk_01",
            state: "completed",
            agent: "CodeAgent",
            after: [],
            change_id: "chg_01",
          },
          { id: "test", task_id: "tsk_02", state: "running", agent: "TestAgent", after: ["code"] },
        ],
      },
    },
  }),
  "agent.pause": defineMethod({
    summary:
      "Let a task rest: a waiting one leaves the line and keeps its age, a running one is held before its next model call.",
    access: "developer",
    params: z.strictObject({ task_id: idSchema }),
    result: pausedView,
    errors: ["NotFound"],
    example: {
      params: { task_id: "tsk_01" },
      result: { task_id: "tsk_01", state: "running", paused: true },
    },
  }),
  "agent.resume": defineMethod({
    summary: "Let a paused task go on.",
    access: "developer",
    params: z.strictObject({ task_id: idSchema }),
    result: pausedView,
    errors: ["NotFound"],
    example: {
      params: { task_id: "tsk_01" },
      result: { task_id: "tsk_01", state: "running", paused: false },
    },
  }),
  "agent.status": defineMethod({
    summary: "Where a task stands, what it cost so far and what came of it.",
    access: "viewer",
    params: z.strictObject({ task_id: idSchema }),
    result: taskView,
    errors: ["NotFound"],
    example: { params: { task_id: "tsk_01" }, result: exampleTask },
  }),
  "agent.cancel": defineMethod({
    summary:
      "End a task, or every step of a plan: a waiting one leaves the queue, a running one loses its whole process tree.",
    access: "developer",
    /** One of the two. */
    params: z.strictObject({ task_id: idSchema.optional(), plan_id: idSchema.optional() }),
    result: taskOrPlan,
    errors: ["NotFound"],
    example: { params: { task_id: "tsk_01" }, result: { task_id: "tsk_01", state: "cancelled" } },
  }),
  "agent.list": defineMethod({
    summary: "The agents that can be dispatched, and what can run them.",
    access: "viewer",
    params: z.strictObject({}),
    result: z.object({
      agents: z.array(
        z.object({
          name: z.string(),
          description: z.string(),
          /** The first one is the default. */
          runners: z.array(runnerSchema),
          /** Whether it changes files, runs commands, and reaches hosts a dispatch grants. */
          permissions: z.object({ edit: z.boolean(), bash: z.boolean(), network: z.boolean() }),
          /** How many times it may mend a result that is refused. */
          repair_rounds: z.number().int(),
        }),
      ),
    }),
    errors: [],
    example: {
      params: {},
      result: {
        agents: [
          {
            name: "CodeAgent",
            description: "Writes and refactors code.",
            runners: ["native", "opencode"],
            permissions: { edit: true, bash: true, network: true },
            repair_rounds: 2,
          },
        ],
      },
    },
  }),
  "agent.history": defineMethod({
    summary: "The caller's tasks, newest first, with a cursor for older ones.",
    access: "viewer",
    params: z.strictObject({
      project_id: idSchema.optional(),
      state: taskStateSchema.optional(),
      cursor: z.string().max(200).optional(),
      limit: z.number().int().min(1).max(100).default(20),
    }),
    result: z.object({ tasks: z.array(taskView), next_cursor: z.string().optional() }),
    errors: ["NotFound"],
    example: { params: { limit: 1 }, result: { tasks: [exampleTask] } },
  }),
  "agent.subscribe": defineMethod({
    summary:
      "Follow a task: every event after `after_seq` comes as an `agent.event` notification, the last of type `done`.",
    access: "viewer",
    params: z.strictObject({ task_id: idSchema, after_seq: z.number().int().min(0).max(MAX_SEQ).default(0) }),
    /** `last_seq`: the newest event at this moment; who has it of a task that has ended will get no other. */
    result: z.object({ task_id: idSchema, state: taskStateSchema, last_seq: z.number().int() }),
    errors: ["NotFound"],
    streaming: true,
    example: { params: { task_id: "tsk_01" }, result: { task_id: "tsk_01", state: "running", last_seq: 12 } },
  }),
  "agent.unsubscribe": defineMethod({
    summary: "Stop following a task on this connection.",
    access: "viewer",
    params: z.strictObject({ task_id: idSchema }),
    result: z.object({ task_id: idSchema }),
    errors: [],
    streaming: true,
    example: { params: { task_id: "tsk_01" }, result: { task_id: "tsk_01" } },
  }),
};
