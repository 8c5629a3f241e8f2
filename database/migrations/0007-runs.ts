import { type Kysely, sql } from "kysely";

/** What programs changed that somebody ran by hand is a kind of revision of its own. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE revisions DROP CONSTRAINT revisions_kind_check`.execute(db);
  await sql`
    ALTER TABLE revisions ADD CONSTRAINT revisions_kind_check
    CHECK (kind IN ('edit', 'agent', 'import', 'rollback', 'run'))
  `.execute(db);
}
