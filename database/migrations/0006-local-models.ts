import { type Kysely, sql } from "kysely";

/** Models of this machine: which file a name stands for, and how it is to be loaded. */
export async function up(db: Kysely<unknown>): Promise<void> {
  for (const statement of STATEMENTS) await sql.raw(statement).execute(db);
}

const STATEMENTS = [
  `ALTER TABLE models
    -- Name below the models directory; null = not installed here.
    ADD COLUMN file text,
    ADD COLUMN kind text CHECK (kind IN ('chat', 'embedding')),
    ADD COLUMN size_bytes bigint,
    ADD COLUMN sha256 text,
    -- Threads, context size and the like, as an administrator wants them.
    ADD COLUMN load_config jsonb NOT NULL DEFAULT '{}',
    -- An administrator's unload says no until a load says yes.
    ADD COLUMN enabled boolean NOT NULL DEFAULT true,
    ADD COLUMN added_at timestamptz`,
];
