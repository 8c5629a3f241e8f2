import { sql } from "kysely";
import type { AdmissionReason } from "#schemas";
import type { Db } from "../schema.ts";

/** An instance that has not spoken for this long counts as gone. */
export const ALIVE_SECONDS = 15;
/** Rows of instances gone for this long are removed. */
const FORGET_SECONDS = 3600;

export interface Heartbeat {
  readonly id: string;
  /** Tasks it runs at once. */
  readonly capacity: number;
  /** Why it takes no task at present. */
  readonly blocked_reason?: AdmissionReason | null | undefined;
}

/** Say that an instance is alive, and whether it takes tasks; well within every 15 s. */
export async function heartbeat(db: Db, { id, capacity, blocked_reason }: Heartbeat): Promise<void> {
  await sql`
    WITH forgotten AS (
      DELETE FROM instances
      WHERE heartbeat_at < now() - make_interval(secs => ${FORGET_SECONDS}::float8) AND id <> ${id}
    )
    INSERT INTO instances (id, capacity, blocked_reason)
    VALUES (${id}, ${capacity}::integer, ${blocked_reason ?? null}::text)
    ON CONFLICT (id) DO UPDATE SET heartbeat_at = clock_timestamp(), capacity = excluded.capacity,
      blocked_reason = excluded.blocked_reason`.execute(db);
}

/** Take an instance off the list at its shutdown. */
export async function removeInstance(db: Db, id: string): Promise<void> {
  await db.deleteFrom("instances").where("id", "=", id).execute();
}
