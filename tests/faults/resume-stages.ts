import { sql } from "kysely";
import type { Db } from "#database";

/** How far a task had come. */
export const STAGES = [
  "waiting",
  "preparing",
  "model asked",
  "tool running",
  "validating",
  "ending",
] as const;
export type Stage = (typeof STAGES)[number];

/** A task under way when its worker was killed. */
export interface Point {
  readonly task_id: string;
  readonly stage: Stage;
  readonly attempt: number;
  readonly last_seq: number;
  /** Null of one that waits. */
  readonly lease_until: Date | null;
}

interface Facts {
  state: string;
  /** Whether the attempt has a model call open; null before its first one. */
  asked: boolean | null;
  last: { type: string; passed?: boolean; status?: string } | null;
}

/** Every task under way, and its stage by what is on record: its row, its model calls, its events. */
export async function pointsNow(db: Db): Promise<Point[]> {
  const { rows } = await sql<Omit<Point, "stage"> & Facts>`
    SELECT t.id AS task_id, t.state, t.attempt, t.last_seq, t.lease_until,
      (SELECT bool_or(c.state = 'open') FROM llm_calls c
        WHERE c.task_id = t.id AND c.attempt = t.attempt) AS asked,
      (SELECT e.data || jsonb_build_object('type', e.type) FROM task_events e
        WHERE e.task_id = t.id AND e.type IN ('text', 'tool', 'validation')
        ORDER BY e.seq DESC LIMIT 1) AS last
    FROM tasks t WHERE t.state IN ('pending', 'running') ORDER BY t.id`.execute(db);
  return rows.map(({ state, asked, last, ...point }) => ({
    ...point,
    stage: stageOf({ state, asked, last }),
  }));
}

function stageOf({ state, asked, last }: Facts): Stage {
  if (state === "pending") return "waiting";
  if (asked === null) return "preparing";
  if (asked) return "model asked";
  if (last?.type === "validation" && last.passed === true) return "ending";
  if (last?.type === "text") return "validating";
  if (last?.type === "tool" && (last.status === "running" || last.status === "pending"))
    return "tool running";
  // Between two things: what comes next is a question to the model.
  return "model asked";
}

/** When the tasks of a dead worker were taken over or ended, against the end of their leases. */
interface TakeOver {
  /** Not yet taken over. */
  readonly left: string[];
  /** Since the lease ended, or since the next worker was there where that was later; ms, by the database's clock. */
  readonly afterMs: number[];
}

export async function takenOver(db: Db, points: readonly Point[], next: Date): Promise<TakeOver> {
  const held = points.flatMap(({ lease_until, ...point }) =>
    lease_until === null ? [] : [{ ...point, since: new Date(Math.max(Number(lease_until), Number(next))) }],
  );
  const { rows } = await sql<{ task_id: string; after_ms: number | null }>`
    SELECT h.task_id, (SELECT extract(epoch FROM e.created_at - h.since)::float8 * 1000 FROM task_events e
      WHERE e.task_id = h.task_id AND e.seq > h.seq AND (e.type = 'done'
        OR (e.type = 'state' AND e.data ->> 'state' = 'pending'))
      ORDER BY e.seq LIMIT 1) AS after_ms
    FROM unnest(${held.map(({ task_id }) => task_id)}::text[], ${held.map(({ last_seq }) => last_seq)}::integer[],
      ${held.map(({ since }) => since)}::timestamptz[]) AS h(task_id, seq, since)`.execute(db);
  return {
    left: rows.filter(({ after_ms }) => after_ms === null).map(({ task_id }) => task_id),
    afterMs: rows.flatMap(({ after_ms }) => (after_ms === null ? [] : [Math.max(0, after_ms)])),
  };
}
