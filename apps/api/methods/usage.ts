import { balanceHistory, listUsageCalls, summarizeUsage } from "#database/ledger/index.ts";
import type { HandlersOf } from "../handler.ts";

export const usageHandlers: HandlersOf<"usage."> = {
  "usage.summary": ({ caller: { user_id }, database }, { group_by, time_zone, ...range }) =>
    summarizeUsage(database.db, { user_id, ...rangeOf(range) }, { group_by, time_zone }),

  "usage.calls": async ({ caller: { user_id }, database }, { model, cursor, limit, ...range }) => {
    const page = await listUsageCalls(database.db, { user_id, ...rangeOf(range), model, cursor, limit });
    const calls = page.calls.map(({ task_id, created_at, ...call }) => ({
      ...call,
      ...(task_id === null ? {} : { task_id }),
      created_at: created_at.toISOString(),
    }));
    return page.next_cursor === undefined ? { calls } : { calls, next_cursor: page.next_cursor };
  },

  "usage.balance": async ({ caller: { user_id }, database }, { bucket, time_zone, ...range }) => {
    const points = await balanceHistory(database.db, { user_id, bucket, time_zone, ...rangeOf(range) });
    return { buckets: points.map(({ start, ...point }) => ({ start: start.toISOString(), ...point })) };
  },
};

function rangeOf({ from, to }: { from?: string | undefined; to?: string | undefined }) {
  return { from: dateOf(from), to: dateOf(to) };
}

function dateOf(moment: string | undefined): Date | undefined {
  return moment === undefined ? undefined : new Date(moment);
}
