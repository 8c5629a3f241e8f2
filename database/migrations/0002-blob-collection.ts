import { type Kysely, sql } from "kysely";

/** What removing unreferenced contents needs: when a content was last handed in, and who refers to it. */
export async function up(db: Kysely<unknown>): Promise<void> {
  for (const statement of STATEMENTS) await sql.raw(statement).execute(db);
}

const STATEMENTS = [
  // A content handed in a moment ago may be referred to by a transaction still to come.
  `ALTER TABLE blobs ADD COLUMN touched_at timestamptz NOT NULL DEFAULT now()`,
  `CREATE INDEX blobs_touched ON blobs (touched_at)`,
  `CREATE INDEX project_files_blob ON project_files (blob_hash)`,
  `CREATE INDEX revision_files_blob ON revision_files (blob_hash) WHERE blob_hash IS NOT NULL`,
  `CREATE INDEX change_files_base ON change_files (base_hash) WHERE base_hash IS NOT NULL`,
  `CREATE INDEX change_files_new ON change_files (new_hash) WHERE new_hash IS NOT NULL`,
];
