import { type Kysely, sql } from "kysely";

/** Whose a snapshot of a virtual machine is; what it holds lies on the disk of the server that took it. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    CREATE TABLE vm_snapshots (
      id text PRIMARY KEY,
      owner_id text NOT NULL REFERENCES users ON DELETE CASCADE,
      created_at timestamptz NOT NULL DEFAULT now()
    )
  `.execute(db);
  await sql`CREATE INDEX vm_snapshots_owner ON vm_snapshots (owner_id)`.execute(db);
}
