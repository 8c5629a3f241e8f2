import { z } from "zod";
import { idSchema } from "../ids.ts";
import { defineMethod } from "./method.ts";

/** A name of the IANA's list, which `Intl` knows in every browser; not a bare offset, which has no summer time. */
export const timeZoneSchema = z
  .string()
  .max(64)
  .refine(isTimeZone, "not a time zone of the IANA's list, as Europe/Berlin");

function isTimeZone(name: string): boolean {
  if (!/^[A-Za-z][\w+/-]*$/.test(name)) return false;
  try {
    return new Intl.DateTimeFormat("en", { timeZone: name }).resolvedOptions().timeZone !== "";
  } catch {
    return false;
  }
}

export const momentSchema = z.iso.datetime({ offset: true });
export const usageGroupBySchema = z.enum(["model", "day", "endpoint", "project", "task"]);
export type UsageGroupBy = z.infer<typeof usageGroupBySchema>;
const balanceBucketSchema = z.enum(["hour", "day", "month"]);
export type BalanceBucket = z.infer<typeof balanceBucketSchema>;

/** From `from` on and before `to`; left out: without bound. */
const range = { from: momentSchema.optional(), to: momentSchema.optional() };

const tokens = {
  input_tokens: z.number().int(),
  output_tokens: z.number().int(),
  /** Those of the input the provider had cached. */
  cached_tokens: z.number().int(),
  cost_microcredits: z.number().int(),
};

const usageSums = z.object({ calls: z.number().int(), ...tokens });
export type UsageSums = z.infer<typeof usageSums>;

const exampleSums: UsageSums = {
  calls: 12,
  input_tokens: 81_200,
  output_tokens: 2140,
  cached_tokens: 64_000,
  cost_microcredits: 89_760,
};

export const usageMethods = {
  "usage.summary": defineMethod({
    summary: "What the caller's model calls came to, in all and by group.",
    access: "viewer",
    params: z.strictObject({
      ...range,
      group_by: usageGroupBySchema,
      /** Whose days are meant. */
      time_zone: timeZoneSchema.default("UTC"),
    }),
    result: z.object({
      total: usageSums,
      /** Days from old to new, others the dearest first. A null key: calls of no project or task. */
      groups: z.array(usageSums.extend({ key: z.string().nullable() })),
      /** Groups beyond the first 1000 (of days: before the last 1000), which are in the total only. */
      omitted: z.number().int(),
    }),
    errors: [],
    example: {
      params: { group_by: "model", from: "2026-11-01T00:00:00Z" },
      result: { total: exampleSums, groups: [{ key: "gpt-5-mini", ...exampleSums }], omitted: 0 },
    },
  }),
  "usage.calls": defineMethod({
    summary: "The caller's single model calls, newest first.",
    access: "viewer",
    params: z.strictObject({
      ...range,
      model: z.string().min(1).max(200).optional(),
      cursor: z.string().max(200).optional(),
      limit: z.number().int().min(1).max(200).default(50),
    }),
    result: z.object({
      calls: z.array(
        z.object({
          call_id: idSchema,
          model: z.string(),
          /** The route that was called. */
          endpoint: z.string(),
          ...tokens,
          /** The provider, our tokenizer where it told nothing, or the local model's own. */
          counted_by: z.enum(["provider", "tokenizer", "model"]),
          /** Absent for a call that was not made for a task. */
          task_id: idSchema.optional(),
          created_at: z.iso.datetime(),
        }),
      ),
      next_cursor: z.string().optional(),
    }),
    errors: [],
    example: {
      params: { limit: 1 },
      result: {
        calls: [
          {
            call_id: "llm_01",
            model: "gpt-5-mini",
            endpoint: "/v1/chat/completions",
            input_tokens: 8120,
            output_tokens: 214,
            cached_tokens: 6400,
            cost_microcredits: 8976,
            counted_by: "provider",
            task_id: "tsk_01",
            created_at: "2026-11-20T10:00:02.000Z",
          },
        ],
      },
    },
  }),
  "usage.balance": defineMethod({
    summary:
      "How the caller's balance went: at most 1000 hours, days or months, also those without a change.",
    access: "viewer",
    params: z.strictObject({
      /** Left out: 24 hours, 30 days or a year before `to`. */
      from: momentSchema.optional(),
      /** Left out: now. */
      to: momentSchema.optional(),
      bucket: balanceBucketSchema,
      /** Whose days and months are meant. */
      time_zone: timeZoneSchema.default("UTC"),
    }),
    result: z.object({
      buckets: z.array(
        z.object({
          start: z.iso.datetime(),
          /** In micro-credits at the bucket's end, which is the next one's start; the last one's is `to`. */
          balance: z.number().int(),
          /** Given by administrators within it; below zero where they took. */
          granted: z.number().int(),
          charged: z.number().int(),
        }),
      ),
    }),
    errors: [],
    example: {
      params: { bucket: "day", from: "2026-11-20T00:00:00Z", to: "2026-11-21T00:00:00Z" },
      result: {
        buckets: [
          { start: "2026-11-20T00:00:00.000Z", balance: 9_991_024, granted: 10_000_000, charged: 8976 },
        ],
      },
    },
  }),
};
