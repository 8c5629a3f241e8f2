import { z } from "zod";
import { admissionReasonSchema, taskErrorSchema, taskStateSchema, usageSchema } from "../events.ts";
import { idSchema } from "../ids.ts";
import { defineMethod } from "./method.ts";

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
  /** 1 = next to start; absent once the task has left the queue. */
  position: z.number().int().positive().optional(),
  /** Why it waits; absent when it does not. */
  reason: admissionReasonSchema.optional(),
};

const taskView = z.object({
  ...queueView,
  agent: z.string(),
  runner: z.string(),
  model: z.string(),
  project_id: idSchema,
  prompt: z.string(),
  attempt: z.number().int(),
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
  change_id: "chg_01",
  usage: { input_tokens: 8120, output_tokens: 214, cost_microcredits: 8976 },
  created_at: "2026-11-20T10:00:00.000Z",
  started_at: "2026-11-20T10:00:00.004Z",
  finished_at: "2026-11-20T10:00:03.120Z",
};

export const agentMethods = {
  "agent.dispatch": defineMethod({
    summary: "Queue a prompt for an agent; its result is a change to review.",
    access: "developer",
    params: z.strictObject({
      agent: z.string().min(1).max(64),
      project_id: idSchema,
      prompt: z.string().trim().min(1).max(MAX_PROMPT_CHARS),
      model: z.string().min(1).max(200),
      runner: runnerSchema.optional(),
      priority: z.number().int().min(1).max(9).default(5),
      /** The same key of the same user answers the first task again instead of making another. */
      idempotency_key: z.string().min(1).max(200).optional(),
    }),
    result: z.object(queueView),
    errors: [
      "NotFound",
      "InsufficientBalance",
      "BudgetExceeded",
      "NoProviderKey",
      "ModelNotFound",
      "QuotaExceeded",
    ],
    example: {
      params: {
        agent: "CodeAgent",
        project_id: "prj_01",
        prompt: "Add a farewell function.",
        model: "demo",
      },
      result: { task_id: "tsk_01", state: "pending", position: 1 },
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
    summary: "End a task: a waiting one leaves the queue, a running one loses its whole process tree.",
    access: "developer",
    params: z.strictObject({ task_id: idSchema }),
    result: z.object({ task_id: idSchema, state: taskStateSchema }),
    errors: ["NotFound"],
    example: { params: { task_id: "tsk_01" }, result: { task_id: "tsk_01", state: "cancelled" } },
  }),
  "agent.list": defineMethod({
    summary: "The agents that can be dispatched, and what can run them.",
    access: "viewer",
    params: z.strictObject({}),
    result: z.object({
      agents: z.array(
        z.object({ name: z.string(), description: z.string(), runners: z.array(runnerSchema) }),
      ),
    }),
    errors: [],
    example: {
      params: {},
      result: {
        agents: [{ name: "CodeAgent", description: "Writes and refactors code.", runners: ["opencode"] }],
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
