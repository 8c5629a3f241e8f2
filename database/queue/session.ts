import { sql } from "kysely";
import type { TaskState } from "#schemas";
import type { Db } from "../schema.ts";

/** Characters of one answer that are kept of it: its end. */
const ANSWER_CHARS = 20_000;
/** Paths of one task that are named. */
const FILES = 200;

/** A task of a session as those after it see it. */
export interface SessionTurn {
  readonly task_id: string;
  readonly state: TaskState;
  readonly prompt: string;
  /** What its agent said in its last attempt; the end of it when that is long. */
  readonly answer: string;
  /** Paths its change touches, in byte order; the first ones when there are many. */
  readonly files: string[];
}

/** A task and those it continues, the oldest first; at most `limit`, the newest ones. */
export async function sessionHistory(db: Db, task_id: string, limit: number): Promise<SessionTurn[]> {
  const { rows } = await sql<SessionTurn>`
    WITH RECURSIVE chain AS (
      SELECT id, state, prompt, continues, change_id, 1 AS depth FROM tasks WHERE id = ${task_id}
      UNION ALL
      SELECT t.id, t.state, t.prompt, t.continues, t.change_id, c.depth + 1
      FROM chain c JOIN tasks t ON t.id = c.continues WHERE c.depth < ${limit}::integer
    )
    SELECT c.id AS task_id, c.state, c.prompt,
      coalesce((
        SELECT right(string_agg(e.data ->> 'delta', '' ORDER BY e.seq), ${ANSWER_CHARS}::integer)
        FROM task_events e
        WHERE e.task_id = c.id AND e.type = 'text' AND e.seq > (
          -- Every attempt begins with a claim of what was waiting.
          SELECT max(s.seq) FROM task_events s
          WHERE s.task_id = c.id AND s.type = 'state' AND s.data ->> 'state' = 'pending')
      ), '') AS answer,
      ARRAY(SELECT f.path FROM change_files f WHERE f.change_id = c.change_id
        ORDER BY f.path LIMIT ${FILES}::integer) AS files
    FROM chain c ORDER BY c.depth DESC`.execute(db);
  return rows;
}
