import { type Kysely, sql } from "kysely";

/** Whether the user lets the project's own configuration for agents' programs into the run. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE tasks ADD COLUMN agent_config boolean NOT NULL DEFAULT false`.execute(db);
}
