/** Whose the snapshots of virtual machines are. */
import type { Db } from "../schema.ts";

export async function addSnapshot(db: Db, snapshot: { id: string; owner_id: string }): Promise<void> {
  await db.insertInto("vm_snapshots").values(snapshot).execute();
}

/** Ids of a user's snapshots, on whichever server. */
export async function snapshotsOf(db: Db, owner_id: string): Promise<Set<string>> {
  const rows = await db.selectFrom("vm_snapshots").select("id").where("owner_id", "=", owner_id).execute();
  return new Set(rows.map(({ id }) => id));
}

/** Those of these ids that somebody has. */
export async function ownedSnapshots(db: Db, ids: readonly string[]): Promise<Set<string>> {
  if (ids.length === 0) return new Set();
  const rows = await db.selectFrom("vm_snapshots").select("id").where("id", "in", ids).execute();
  return new Set(rows.map(({ id }) => id));
}

/** @returns whether the user had it. */
export async function deleteSnapshot(db: Db, snapshot: { id: string; owner_id: string }): Promise<boolean> {
  const { numDeletedRows } = await db
    .deleteFrom("vm_snapshots")
    .where("id", "=", snapshot.id)
    .where("owner_id", "=", snapshot.owner_id)
    .executeTakeFirst();
  return numDeletedRows > 0n;
}
