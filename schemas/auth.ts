import { z } from "zod";
import { roleSchema, userSchema } from "./rpc/account.ts";
import { budgetLimitSchema, budgetPeriodSchema } from "./rpc/budget.ts";
import { momentSchema, timeZoneSchema, type UsageSums, usageGroupBySchema } from "./rpc/usage.ts";

/** A name or an e-mail address; compared without regard to case. */
export const usernameSchema = z
  .string()
  .trim()
  .min(2)
  .max(254)
  .regex(
    /^[\p{L}\p{N}][\p{L}\p{N}._@+-]*$/u,
    "letters, digits and . _ @ + - only, starting with a letter or digit",
  );
export const passwordSchema = z.string().min(8).max(1024);

export const credentialsSchema = z.strictObject({ username: usernameSchema, password: passwordSchema });
/** Logging in must not tell which rules a password has, so any string passes to the comparison. */
export const loginSchema = z.strictObject({ username: z.string().max(254), password: z.string().max(1024) });
export const refreshSchema = z.strictObject({ refresh_token: z.string().min(1).max(512) });

export const sessionSchema = z.object({
  access_token: z.string(),
  refresh_token: z.string(),
  /** Seconds until the access token expires. */
  expires_in: z.number().int(),
  user: userSchema,
});
export type Session = z.infer<typeof sessionSchema>;

export const createUserSchema = z.strictObject({
  username: usernameSchema,
  password: passwordSchema,
  role: roleSchema.default("developer"),
});
export const setBalanceSchema = z.strictObject({
  balance_microcredits: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER),
});
export const setBudgetSchema = z.strictObject({
  limit_microcredits: budgetLimitSchema,
  period: budgetPeriodSchema.default("month"),
});
export const setRoleSchema = z.strictObject({ role: roleSchema });
export const changePasswordSchema = z.strictObject({
  old_password: z.string().max(1024),
  new_password: passwordSchema,
});
export const listUsersSchema = z.strictObject({
  cursor: z
    .string()
    .regex(/^[\w-]{1,64}$/, "not a cursor this list gave out")
    .optional(),
  limit: z.coerce.number().int().min(1).max(200).default(50),
});

/** Micro-credits per million tokens. */
const perMillion = z.number().int().min(0).max(1e12);
/** What a model can be called; names of model hubs have slashes and colons. */
export const modelNameSchema = z
  .string()
  .min(1)
  .max(200)
  .regex(/^[^\p{Cc}\p{Cs}]*$/u, "control characters are not allowed");
export const setPriceSchema = z
  .strictObject({
    input_per_million: perMillion,
    output_per_million: perMillion,
    /** Of input the provider had cached; left out or null: as other input. */
    cached_per_million: perMillion.nullish(),
  })
  .refine(({ input_per_million, cached_per_million }) => (cached_per_million ?? 0) <= input_per_million, {
    path: ["cached_per_million"],
    message: "must not be above input_per_million",
  });
export const listPricesSchema = z.strictObject({
  cursor: z
    .string()
    .regex(/^[\w-]{1,1100}$/, "not a cursor this list gave out")
    .optional(),
  limit: z.coerce.number().int().min(1).max(1000).default(200),
});

/** A model's own price, micro-credits per million tokens. */
export interface PriceView {
  model: string;
  input_per_million: number;
  /** Null: as other input. */
  cached_per_million: number | null;
  output_per_million: number;
}

/** A user as an administrator sees them. */
export const adminUserSchema = userSchema.extend({
  balance_microcredits: z.number().int(),
  held_microcredits: z.number().int(),
  /** Absent while nothing bounds what they spend but their balance. */
  budget: z
    .object({
      limit_microcredits: z.number().int(),
      period: budgetPeriodSchema,
      spent_microcredits: z.number().int(),
      resets_at: z.iso.datetime().nullable(),
    })
    .optional(),
  created_at: z.iso.datetime(),
});
export type AdminUserView = z.infer<typeof adminUserSchema>;

/** Query of `GET /admin/users/:id/usage`. */
export const userUsageSchema = z.strictObject({
  from: momentSchema.optional(),
  to: momentSchema.optional(),
  group_by: usageGroupBySchema.optional(),
  time_zone: timeZoneSchema.default("UTC"),
});

/** What a user has used, in all and by model; by a further group when one was asked for. */
export interface UsageView extends UsageSums {
  user_id: string;
  models: (UsageSums & { model: string })[];
  groups?: (UsageSums & { key: string | null })[];
  /** Groups that are not shown because there are too many. */
  omitted?: number;
}
