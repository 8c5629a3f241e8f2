import {
  createUser,
  type Db,
  type EnqueuedPlan,
  enqueuePlan,
  enqueueTask,
  type NewPlan,
  type NewTask,
  type Renewed,
  renewLeases,
  type TaskRow,
} from "#database";
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

/** Renew one lease whose row nobody else has. */
export async function renewLease(
  db: Db,
  task_id: string,
  attempt: number,
  lease_ms: number,
): Promise<Renewed> {
  const [lease] = await renewLeases(db, [{ task_id, attempt }], lease_ms);
  if (lease === undefined) throw new Error("somebody else has the task's row");
  const { alive, cancel, paused } = lease;
  return { alive, cancel, paused };
}

/** A plan of a user's: the names of its steps, each with those it comes after. */
export async function addPlan<Step extends string>(
  db: Db,
  user_id: string,
  order: Readonly<Record<Step, readonly string[]>>,
  given: Partial<NewPlan> = {},
): Promise<EnqueuedPlan & { ids: Record<Step, string> }> {
  const names = Object.keys(order) as Step[];
  const enqueued = await enqueuePlan(db, {
    id: newId("plan"),
    user_id,
    project_id: "prj_test",
    steps: names.map((id) => ({
      ...{ id, after: order[id], task_id: newId("task"), prompt: `Do ${id}.`, priority: 5 },
      ...{ agent: "CodeAgent", runner: "opencode", model: "demo" },
    })),
    max_attempts: 3,
    budget: 1000,
    pendingLimit: 1000,
    ...given,
  });
  const ids = Object.fromEntries(enqueued.tasks.map(({ step, id }) => [step, id])) as Record<Step, string>;
  return { ...enqueued, ids };
}
