import { createUser, type Db, enqueueTask, type NewTask, type TaskRow } from "#database";
import { newId } from "#platform/ids.ts";

/** An account with a balance in micro-credits; answers its id. */
export async function addUser(db: Db, initial_balance = 1_000_000): Promise<string> {
  const id = newId("user");
  await createUser(db, { id, username: id, password_hash: "-", role: "developer", initial_balance });
  return id;
}

/** A waiting task of a user's, in a project that need not exist. */
export async function addTask(db: Db, user_id: string, given: Partial<NewTask> = {}): Promise<TaskRow> {
  const { task } = await enqueueTask(db, {
    id: newId("task"),
    user_id,
    project_id: "prj_test",
    agent: "CodeAgent",
    runner: "opencode",
    model: "demo",
    prompt: "Say hello.",
    priority: 5,
    max_attempts: 3,
    budget: 1000,
    pendingLimit: 1000,
    ...given,
  });
  return task;
}
