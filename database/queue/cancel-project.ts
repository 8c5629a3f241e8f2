import type { Db } from "../schema.ts";
import { requestCancel } from "./cancel.ts";

/**
 * Ask for the end of every task of a project that has not ended; each in a transaction of its own.
 * @returns how many there were.
 */
export async function cancelProjectTasks(db: Db, project_id: string): Promise<number> {
  const tasks = await db
    .selectFrom("tasks")
    .select("id")
    .where("project_id", "=", project_id)
    .where("state", "in", ["pending", "running"])
    .execute();
  for (const { id } of tasks) await requestCancel(db, "admin", id);
  return tasks.length;
}
