import { type Kysely, sql } from "kysely";

/** What a project's whole history takes: a file saved again and again stays in it every time. */
export async function up(db: Kysely<unknown>): Promise<void> {
  for (const statement of STATEMENTS) await sql.raw(statement).execute(db);
}

const STATEMENTS = [
  // Bytes of all contents the project has ever had, each once.
  `ALTER TABLE projects ADD COLUMN history_bytes bigint NOT NULL DEFAULT 0`,
  `UPDATE projects SET history_bytes = coalesce((
    SELECT sum(size) FROM (
      SELECT DISTINCT blob_hash, size FROM revision_files
      WHERE project_id = projects.id AND blob_hash IS NOT NULL
    ) AS contents), 0)`,
];
