import { z } from "zod";
import { idSchema } from "./ids.ts";

/** The life of a task (AG-2); the last three are terminal. */
export const TASK_STATES = ["pending", "running", "completed", "failed", "cancelled"] as const;
export const taskStateSchema = z.enum(TASK_STATES);
export type TaskState = z.infer<typeof taskStateSchema>;

export function isTerminal(state: TaskState): boolean {
  return state === "completed" || state === "failed" || state === "cancelled";
}

/** Why a task waits (MU-5, names verbatim). */
export const ADMISSION_REASONS = [
  "max_concurrent_reached",
  "user_already_active",
  "memory_threshold_exceeded",
  "disk_threshold_exceeded",
  "rate_limit_exceeded",
] as const;
export const admissionReasonSchema = z.enum(ADMISSION_REASONS);
export type AdmissionReason = z.infer<typeof admissionReasonSchema>;

/** Why a task is not even in the line; it has no position then. */
export const REST_REASONS = ["waits_for_step", "paused"] as const;
export const waitReasonSchema = z.enum([...ADMISSION_REASONS, ...REST_REASONS]);
export type WaitReason = z.infer<typeof waitReasonSchema>;

/** What its user looks at while dispatching a task. */
export const taskContextSchema = z.strictObject({
  /** The open file. */
  path: z.string().min(1).max(1024).optional(),
  /** Lines counted from 1, both included. */
  selection: z
    .strictObject({
      start_line: z.number().int().positive(),
      end_line: z.number().int().positive(),
      text: z.string().max(20_000),
    })
    .optional(),
});
export type TaskContext = z.infer<typeof taskContextSchema>;

/** How a task failed, as its owner sees it. */
export const taskErrorSchema = z.object({
  code: z.string(),
  message: z.string(),
  hint: z.string().optional(),
});
export type TaskError = z.infer<typeof taskErrorSchema>;

export const usageSchema = z.object({
  input_tokens: z.number().int(),
  output_tokens: z.number().int(),
  cost_microcredits: z.number().int(),
});
export type Usage = z.infer<typeof usageSchema>;

export const SEVERITIES = ["critical", "high", "medium", "low", "info"] as const;

/** What an audit found at one place of the project. */
export const findingSchema = z.object({
  file: z.string().min(1).max(1024),
  /** Counted from 1. */
  line: z.number().int().positive(),
  severity: z.enum(SEVERITIES),
  /** A weakness of the Common Weakness Enumeration, as in `CWE-79`. */
  cwe: z.string().regex(/^CWE-[1-9]\d{0,4}$/),
  title: z.string().min(1).max(300),
  detail: z.string().max(4000),
  fix: z.string().max(4000).optional(),
});
export type Finding = z.infer<typeof findingSchema>;

/** Something that was run to judge a result. */
export const checkReportSchema = z.object({
  name: z.string(),
  command: z.string().optional(),
  passed: z.boolean(),
  /** Whether the same passed on the project as it was before; absent when that was not tried. */
  before: z.boolean().optional(),
  /** The end of what it said. */
  output: z.string(),
});
export type CheckReport = z.infer<typeof checkReportSchema>;

const TOOL_STATUSES = ["pending", "running", "completed", "failed"] as const;

/** What one event says, by type. A task's last event is always `done`. */
export const taskEventBodySchema = z.discriminatedUnion("type", [
  z.object({
    type: z.literal("state"),
    state: taskStateSchema,
    attempt: z.number().int().optional(),
    note: z.string().optional(),
  }),
  z.object({ type: z.literal("text"), delta: z.string() }),
  z.object({ type: z.literal("thought"), delta: z.string() }),
  z.object({
    type: z.literal("tool"),
    call_id: z.string(),
    name: z.string(),
    status: z.enum(TOOL_STATUSES),
    title: z.string().optional(),
    input: z.unknown().optional(),
    output: z.string().optional(),
    truncated: z.boolean().optional(),
  }),
  z.object({ type: z.literal("usage"), ...usageSchema.shape }),
  /** A result was judged; one that is refused is mended by the agent in the next round, while there is one left. */
  z.object({
    type: z.literal("validation"),
    /** Counted from 1. */
    round: z.number().int().positive(),
    passed: z.boolean(),
    problems: z.array(z.string()),
    checks: z.array(checkReportSchema),
  }),
  z.object({ type: z.literal("findings"), findings: z.array(findingSchema) }),
  z.object({ type: z.literal("change"), change_id: idSchema, files: z.number().int() }),
  z.object({ type: z.literal("error"), ...taskErrorSchema.shape }),
  z.object({
    type: z.literal("done"),
    state: taskStateSchema,
    change_id: idSchema.optional(),
    error: taskErrorSchema.optional(),
  }),
]);
export type TaskEventBody = z.infer<typeof taskEventBodySchema>;

/** One event of a task's log: `seq` starts at 1 and has no gap. */
export const taskEventSchema = z
  .object({ task_id: idSchema, seq: z.number().int().positive(), at: z.iso.datetime() })
  .and(taskEventBodySchema);
export type TaskEvent = z.infer<typeof taskEventSchema>;
