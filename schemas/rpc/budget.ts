import { z } from "zod";
import { idSchema } from "../ids.ts";
import { defineMethod } from "./method.ts";

/** A calendar month in UTC, or for good. */
export const budgetPeriodSchema = z.enum(["month", "total"]);
/** Micro-credits; null = no limit. */
export const budgetLimitSchema = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER).nullable();

/** Amounts in micro-credits. */
const budgetView = z.object({
  limit: budgetLimitSchema,
  period: budgetPeriodSchema,
  /** Within the present period. */
  spent: z.number().int(),
  /** Set aside for waiting and running work; counts against the limit until it is spent or given back. */
  held: z.number().int(),
  /** When the next period begins; null for a `total` budget. */
  resets_at: z.iso.datetime().nullable(),
});

const exampleBudget: z.input<typeof budgetView> = {
  limit: 5_000_000,
  period: "month",
  spent: 1_204_310,
  held: 1_000_000,
  resets_at: "2026-12-01T00:00:00.000Z",
};

export const budgetMethods = {
  "budget.get": defineMethod({
    summary: "What the caller, or a project of theirs, may spend and has spent.",
    access: "viewer",
    params: z.strictObject({
      /** Left out: the caller's own budget, which an administrator sets. */
      project_id: idSchema.optional(),
    }),
    result: budgetView,
    errors: ["NotFound"],
    example: { params: { project_id: "prj_01" }, result: exampleBudget },
  }),
  "budget.set": defineMethod({
    summary:
      "Bound what all tasks of a project of the caller's may spend together; what is held already may still be spent.",
    access: "developer",
    params: z.strictObject({
      project_id: idSchema,
      limit: budgetLimitSchema,
      period: budgetPeriodSchema.default("month"),
    }),
    result: budgetView,
    errors: ["NotFound"],
    example: { params: { project_id: "prj_01", limit: 5_000_000, period: "month" }, result: exampleBudget },
  }),
};
