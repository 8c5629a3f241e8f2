import { type RawBuilder, sql } from "kysely";
import type { UsageGroupBy, UsageSums, UsageView } from "#schemas";
import { after, createdAtMicros, readCursor, writeCursor } from "../cursor.ts";
import { nameTimeZoneError } from "../errors.ts";
import type { Db, TokensUsedTable } from "../schema.ts";

/** Groups a summary shows; the rest is in its total. */
const MAX_GROUPS = 1000;

/** A user's model calls from `from` on and before `to`; left out: without bound. */
export interface UsageFilter {
  readonly user_id: string;
  readonly from?: Date | undefined;
  readonly to?: Date | undefined;
}

export interface UsageGrouping {
  readonly group_by: UsageGroupBy;
  /** IANA name: whose days are meant. */
  readonly time_zone: string;
}

export interface UsageSummary {
  readonly total: UsageSums;
  /** Days from old to new, others the dearest first. A null key: calls that belong to no project or task. */
  readonly groups: (UsageSums & { key: string | null })[];
  /** Groups beyond those shown: the oldest days, or the cheapest others. */
  readonly omitted: number;
}

const NOTHING: UsageSums = {
  calls: 0,
  input_tokens: 0,
  output_tokens: 0,
  cached_tokens: 0,
  cost_microcredits: 0,
};

function within({ user_id, from, to }: UsageFilter): RawBuilder<unknown> {
  const since = from === undefined ? sql`` : sql`AND u.created_at >= ${from}`;
  const before = to === undefined ? sql`` : sql`AND u.created_at < ${to}`;
  return sql`u.user_id = ${user_id} ${since} ${before}`;
}

function keyOf({ group_by, time_zone }: UsageGrouping): RawBuilder<string | null> {
  switch (group_by) {
    case "model":
      return sql`u.model_id`;
    case "endpoint":
      return sql`u.endpoint`;
    case "task":
      return sql`u.task_id`;
    case "project":
      return sql`t.project_id`;
    case "day":
      return sql`to_char(u.created_at AT TIME ZONE ${time_zone}, 'YYYY-MM-DD')`;
  }
}

/** What calls came to, in all and by group, in one snapshot. @throws AppError InvalidParams for an unknown zone. */
export async function summarizeUsage(
  db: Db,
  filter: UsageFilter,
  grouping: UsageGrouping,
): Promise<UsageSummary> {
  const byDay = grouping.group_by === "day";
  const { rows } = await sql<
    { [K in keyof UsageSums as K | `total_${K}`]: number } & { key: string | null; groups: number }
  >`
    WITH used AS (
      SELECT ${keyOf(grouping)} AS key, u.input_tokens, u.output_tokens, u.cached_tokens, u.cost_microcredits
      FROM tokens_used u ${grouping.group_by === "project" ? sql`LEFT JOIN tasks t ON t.id = u.task_id` : sql``}
      WHERE ${within(filter)}
    ), grouped AS (
      SELECT key, count(*) AS calls, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
        sum(cached_tokens) AS cached_tokens, sum(cost_microcredits) AS cost_microcredits
      FROM used GROUP BY key
    )
    SELECT *, count(*) OVER () AS groups, sum(calls) OVER () AS total_calls,
      sum(input_tokens) OVER () AS total_input_tokens, sum(output_tokens) OVER () AS total_output_tokens,
      sum(cached_tokens) OVER () AS total_cached_tokens, sum(cost_microcredits) OVER () AS total_cost_microcredits
    FROM grouped ORDER BY ${byDay ? sql`key DESC` : sql`cost_microcredits DESC, calls DESC, key`}
    LIMIT ${MAX_GROUPS}`
    .execute(db)
    .catch(nameTimeZoneError);
  const [first] = rows;
  if (first === undefined) return { total: NOTHING, groups: [], omitted: 0 };
  const groups = rows.map(
    ({ key, calls, input_tokens, output_tokens, cached_tokens, cost_microcredits }) => ({
      key,
      ...{ calls, input_tokens, output_tokens, cached_tokens, cost_microcredits },
    }),
  );
  return {
    total: {
      calls: first.total_calls,
      input_tokens: first.total_input_tokens,
      output_tokens: first.total_output_tokens,
      cached_tokens: first.total_cached_tokens,
      cost_microcredits: first.total_cost_microcredits,
    },
    groups: byDay ? groups.reverse() : groups,
    omitted: first.groups - groups.length,
  };
}

/** A user's use as an administrator sees it: in all, by model, and by a further group when one is asked for. */
export async function usageOfUser(db: Db, filter: UsageFilter, grouping?: UsageGrouping): Promise<UsageView> {
  const { total, groups } = await summarizeUsage(db, filter, { group_by: "model", time_zone: "UTC" });
  const view = {
    user_id: filter.user_id,
    ...total,
    models: groups.map(({ key, ...sums }) => ({ model: key ?? "", ...sums })),
  };
  if (grouping === undefined) return view;
  const asked = await summarizeUsage(db, filter, grouping);
  return { ...view, groups: asked.groups, omitted: asked.omitted };
}

export interface UsageCall extends Omit<UsageSums, "calls"> {
  readonly call_id: string;
  readonly model: string;
  readonly endpoint: string;
  readonly counted_by: TokensUsedTable["counted_by"];
  readonly task_id: string | null;
  readonly created_at: Date;
}

export interface UsageCallPage {
  readonly calls: UsageCall[];
  readonly next_cursor?: string;
}

/** Single calls, newest first. @throws AppError InvalidParams for a cursor that is none. */
export async function listUsageCalls(
  db: Db,
  filter: UsageFilter & {
    readonly model?: string | undefined;
    readonly cursor?: string | undefined;
    readonly limit: number;
  },
): Promise<UsageCallPage> {
  let query = db
    .selectFrom("tokens_used as u")
    .select(["call_id", "model_id as model", "endpoint", "input_tokens", "output_tokens", "cached_tokens"])
    .select(["cost_microcredits", "counted_by", "task_id", "created_at", createdAtMicros.as("at")])
    .where(sql<boolean>`${within(filter)}`)
    .orderBy("created_at", "desc")
    .orderBy("call_id", "desc")
    .limit(filter.limit + 1);
  if (filter.model !== undefined) query = query.where("model_id", "=", filter.model);
  if (filter.cursor !== undefined) query = query.where(after(readCursor(filter.cursor), "call_id"));
  const rows = await query.execute();
  const calls = rows.slice(0, filter.limit).map(({ at: _, ...call }) => call);
  const last = rows[filter.limit - 1];
  return rows.length > filter.limit && last !== undefined
    ? { calls, next_cursor: writeCursor({ at: last.at, id: last.call_id }) }
    : { calls };
}
