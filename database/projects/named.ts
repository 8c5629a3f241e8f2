import type { Database } from "../open.ts";
import { createProject } from "./store.ts";
import type { Project, Quota } from "./types.ts";

/** Makings in flight, so that requests at the same moment share one. */
const making = new Map<string, Promise<Project>>();

/**
 * The owner's oldest project of this name, made when there is none.
 * @throws AppError QuotaExceeded when it would have to be made and the owner has too many.
 */
export async function ensureProject(
  database: Database,
  wanted: { owner_id: string; name: string; quota: Quota },
): Promise<Project> {
  const { owner_id, name } = wanted;
  const found = await database.db
    .selectFrom("projects")
    .selectAll()
    .where("owner_id", "=", owner_id)
    .where("name", "=", name)
    .orderBy("created_at")
    .orderBy("id")
    .executeTakeFirst();
  if (found !== undefined) return found;
  const key = JSON.stringify([owner_id, name]);
  const promise = making.get(key) ?? createProject(database, wanted).finally(() => making.delete(key));
  making.set(key, promise);
  return promise;
}
