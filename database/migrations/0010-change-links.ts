import { type Kysely, sql } from "kysely";

/** What a change has to do with other changes, and the revision one undoes. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql
    .raw(`ALTER TABLE changes
      -- Changes whose files its own are made over: accepted together with it.
      ADD COLUMN builds_on text[] NOT NULL DEFAULT '{}',
      -- The change it is made to replace: rejected when this one is accepted.
      ADD COLUMN resolves text,
      -- The revision it undoes; accepted it is a rollback.
      ADD COLUMN reverts integer,
      -- The change of which a part was accepted: this one holds what was left.
      ADD COLUMN rest_of text`)
    .execute(db);
  await sql`CREATE INDEX changes_rest_of ON changes (rest_of) WHERE rest_of IS NOT NULL`.execute(db);
}
