import { sql } from "kysely";
import type { TaskEvent, TaskEventBody } from "#schemas";
import type { Db } from "../schema.ts";

/** A task's events after `after_seq`, oldest first. */
export async function readEvents(
  db: Db,
  task_id: string,
  after_seq: number,
  limit: number,
): Promise<TaskEvent[]> {
  const rows = await db
    .selectFrom("task_events")
    .select(["seq", "type", "data", "created_at"])
    .where("task_id", "=", task_id)
    .where("seq", ">", after_seq)
    .orderBy("seq")
    .limit(limit)
    .execute();
  return rows.map(({ seq, type, data, created_at }) => toEvent(task_id, seq, type, data, created_at));
}

/** A reader's place in a task's log. */
export interface Place {
  readonly task_id: string;
  readonly after_seq: number;
}

export interface Page {
  readonly events: readonly TaskEvent[];
  /** Whether it was cut off by a limit, so that more may be there. */
  readonly full: boolean;
}

interface PageRow {
  place: number;
  seq: number;
  type: string;
  body: string;
  created_at: Date;
  upto: number;
}

/**
 * The next events at many places in one statement. A page ends at `rows` events or with the event that brings it
 * to `bytes` of JSON; it has at least one event where there is one.
 */
export async function readPages(
  db: Db,
  places: readonly Place[],
  { rows: maxRows, bytes }: { rows: number; bytes: number },
): Promise<Page[]> {
  const ids = places.map(({ task_id }) => task_id);
  const seqs = places.map(({ after_seq }) => after_seq);
  const { rows } = await sql<PageRow>`
    SELECT p.place::integer AS place, e.seq, e.type, e.body, e.created_at, e.upto
    FROM unnest(${ids}::text[], ${seqs}::integer[]) WITH ORDINALITY AS p(task_id, after_seq, place)
    CROSS JOIN LATERAL (
      SELECT b.*, sum(octet_length(b.body)) OVER (ORDER BY b.seq) AS upto
      FROM (
        SELECT seq, type, data::text AS body, created_at FROM task_events
        WHERE task_id = p.task_id AND seq > p.after_seq ORDER BY seq LIMIT ${maxRows}
      ) b
    ) e
    WHERE e.upto - octet_length(e.body) < ${bytes}
    ORDER BY p.place, e.seq`.execute(db);
  const pages = places.map(() => ({ events: [] as TaskEvent[], full: false }));
  for (const row of rows) {
    const place = places[row.place - 1];
    const page = pages[row.place - 1];
    if (place === undefined || page === undefined) continue;
    page.events.push(toEvent(place.task_id, row.seq, row.type, JSON.parse(row.body), row.created_at));
    page.full = page.events.length >= maxRows || row.upto >= bytes;
  }
  return pages;
}

/** Rows are written from `TaskEventBody` only, so a row read back is one. */
function toEvent(task_id: string, seq: number, type: string, data: object, at: Date): TaskEvent {
  return { task_id, seq, at: at.toISOString(), ...({ type, ...data } as TaskEventBody) };
}
