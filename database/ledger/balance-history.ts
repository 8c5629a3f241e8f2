import { type RawBuilder, sql } from "kysely";
import { AppError, type BalanceBucket } from "#schemas";
import { notFound } from "../accounts/users.ts";
import { nameTimeZoneError } from "../errors.ts";
import type { Db } from "../schema.ts";

/** Buckets one answer has at the most. */
const MAX_BUCKETS = 1000;
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** How short a bucket can be, and how much is shown when no beginning is named, ms. */
const SIZES: Readonly<Record<BalanceBucket, { shortest: number; usual: number }>> = {
  hour: { shortest: HOUR_MS, usual: DAY_MS },
  // The day that loses an hour to summer time.
  day: { shortest: 23 * HOUR_MS, usual: 30 * DAY_MS },
  month: { shortest: 28 * DAY_MS - HOUR_MS, usual: 365 * DAY_MS },
};

export interface BalanceQuery {
  readonly user_id: string;
  readonly bucket: BalanceBucket;
  /** IANA name: whose days and months are meant. */
  readonly time_zone: string;
  /** Shown from the beginning of the bucket it lies in; left out: 24 hours, 30 days or a year before `to`. */
  readonly from?: Date | undefined;
  /** The last bucket ends here; left out: now. */
  readonly to?: Date | undefined;
}

/** Amounts in micro-credits. */
export interface BalancePoint {
  readonly start: Date;
  /** At the bucket's end, which is the next one's start; the last one's is `to`. */
  readonly balance: number;
  /** What administrators gave within it; below zero where they took. */
  readonly granted: number;
  readonly charged: number;
}

/**
 * How a balance went, from old to new, with every bucket there is: reckoned back from the account's present
 * balance, in one snapshot, so that it is exact whatever is charged meanwhile.
 * @throws AppError InvalidParams for too many buckets, an end before the beginning or an unknown zone; NotFound.
 */
export async function balanceHistory(db: Db, query: BalanceQuery): Promise<BalancePoint[]> {
  const { user_id, bucket, time_zone } = query;
  const to = query.to ?? new Date();
  const from = query.from ?? new Date(to.getTime() - SIZES[bucket].usual);
  checkSpan(from, to, bucket);
  const { rows } = await sql<BalancePoint>`
    WITH starts AS (${startsOf(bucket, time_zone, from, to)}),
    buckets AS (
      SELECT start, lead(start, 1, ${to}::timestamptz) OVER (ORDER BY start) AS finish
      FROM starts WHERE start < ${to}
    ), sums AS (
      SELECT b.start, s.granted, s.charged FROM buckets b CROSS JOIN LATERAL (
        SELECT coalesce(sum(balance_delta) FILTER (WHERE kind = 'grant'), 0) AS granted,
          coalesce(-sum(balance_delta) FILTER (WHERE kind <> 'grant'), 0) AS charged
        FROM ledger_entries
        WHERE user_id = ${user_id} AND balance_delta <> 0 AND created_at >= b.start AND created_at < b.finish
      ) s
    ), later AS (
      SELECT coalesce(sum(balance_delta), 0) AS delta FROM ledger_entries
      WHERE user_id = ${user_id} AND balance_delta <> 0 AND created_at >= ${to}
    )
    SELECT s.start, s.granted, s.charged, u.token_balance - l.delta + s.granted - s.charged
      - sum(s.granted - s.charged) OVER (ORDER BY s.start DESC) AS balance
    FROM users u CROSS JOIN later l CROSS JOIN sums s WHERE u.id = ${user_id}
    ORDER BY s.start`
    .execute(db)
    .catch(nameTimeZoneError);
  return rows.length === 0 ? notFound() : rows;
}

/** Every bucket's first moment, as `start`. */
function startsOf(bucket: BalanceBucket, zone: string, from: Date, to: Date): RawBuilder<unknown> {
  // Hours are counted as time passes: one of the clock's may come twice or never.
  if (bucket === "hour") {
    return sql`SELECT generate_series(date_trunc('hour', ${from}::timestamptz, ${zone}), ${to}::timestamptz,
      interval '1 hour') AS start`;
  }
  const step = bucket === "day" ? sql`interval '1 day'` : sql`interval '1 month'`;
  // Days and months are counted on the wall. Where the clock is put back over midnight, that comes twice, and the
  // day begins with the first of them.
  return sql`
    SELECT CASE WHEN (moment - interval '1 hour') AT TIME ZONE ${zone} >= wall THEN moment - interval '1 hour'
      ELSE moment END AS start
    FROM (
      SELECT wall, wall AT TIME ZONE ${zone} AS moment
      FROM generate_series(date_trunc(${bucket}, ${from}::timestamptz AT TIME ZONE ${zone}),
        ${to}::timestamptz AT TIME ZONE ${zone}, ${step}) AS wall
    ) AS walls`;
}

function checkSpan(from: Date, to: Date, bucket: BalanceBucket): void {
  const span = to.getTime() - from.getTime();
  // One more than the full ones: the first begins before `from`.
  const most = Math.ceil(span / SIZES[bucket].shortest) + 1;
  const message =
    span <= 0
      ? "must be before `to`"
      : most > MAX_BUCKETS
        ? `is too early: an answer has at most ${MAX_BUCKETS} of one ${bucket}`
        : undefined;
  if (message === undefined) return;
  throw new AppError("InvalidParams", `from ${message}`, { issues: [{ path: "from", message }] });
}
