import { sql } from "kysely";
import type { UsageView } from "#schemas";
import type { Db } from "../schema.ts";

/** What a user's model calls came to, in all and by model, the dearest first. */
export async function usageOfUser(db: Db, user_id: string): Promise<UsageView> {
  const models = await db
    .selectFrom("tokens_used")
    .select((eb) => [
      "model_id as model",
      eb.fn.countAll<number>().as("calls"),
      sql<number>`sum(input_tokens)::bigint`.as("input_tokens"),
      sql<number>`sum(output_tokens)::bigint`.as("output_tokens"),
      sql<number>`sum(cost_microcredits)::bigint`.as("cost_microcredits"),
    ])
    .where("user_id", "=", user_id)
    .groupBy("model_id")
    .orderBy("cost_microcredits", "desc")
    .orderBy("model_id")
    .execute();
  const total = (field: "calls" | "input_tokens" | "output_tokens" | "cost_microcredits") =>
    models.reduce((sum, model) => sum + model[field], 0);
  return {
    user_id,
    calls: total("calls"),
    input_tokens: total("input_tokens"),
    output_tokens: total("output_tokens"),
    cost_microcredits: total("cost_microcredits"),
    models,
  };
}
