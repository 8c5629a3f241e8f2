import { z } from "zod";
import { taskEventSchema } from "./events.ts";
import { idSchema } from "./ids.ts";

/** What the server sends by itself over `/ws`: JSON-RPC notifications. */
export const notifications = {
  "agent.event": {
    summary: "One event of a followed task, in the order of `seq`; the last one is of type `done`.",
    params: taskEventSchema,
  },
  "run.started": {
    summary: "A program of run.stream runs; `tag` is the call's own.",
    params: z.object({ process_id: idSchema, tag: z.string().optional() }),
  },
  "run.output": {
    summary: "What a program of run.stream wrote. `seq` counts the pieces of both streams together, from 1.",
    params: z.object({
      process_id: idSchema,
      seq: z.number().int(),
      stream: z.enum(["stdout", "stderr"]),
      /** Text, or base64 where that was asked for. */
      data: z.string(),
    }),
  },
  "terminal.output": {
    summary: "What a terminal shows next; acknowledge it by `terminal.ack`.",
    params: z.object({ terminal_id: idSchema, seq: z.number().int(), data: z.string() }),
  },
  "terminal.exit": {
    summary: "A terminal has ended. `reason` tells which limit ended it, where one did.",
    params: z.object({
      terminal_id: idSchema,
      exit_code: z.number().int().nullable(),
      signal: z.string().nullable(),
      reason: z.string().optional(),
    }),
  },
  "terminal.saved": {
    summary:
      "What was changed in a terminal has become a revision, or (`change_id`) a change to review; `warnings` tell what was not saved, and why.",
    params: z.object({
      terminal_id: idSchema,
      revision: z.number().int(),
      change_id: idSchema.optional(),
      warnings: z.array(z.string()).optional(),
    }),
  },
} as const;

export type NotificationName = keyof typeof notifications;
export type NotificationParams<N extends NotificationName> = z.output<(typeof notifications)[N]["params"]>;
