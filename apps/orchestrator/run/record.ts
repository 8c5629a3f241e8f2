import { setTimeout as sleep } from "node:timers/promises";
import { finishTask, requeueTask } from "#database/queue/index.ts";
import { AppError } from "#schemas";
import { toTaskError } from "./failures.ts";
import type { RunDeps, RunEnd, RunningTask } from "./run-deps.ts";

const TRIES = 8;
const TRY_PAUSE_MS = 250;
const BACKOFF_MS = 1000;
const MAX_BACKOFF_MS = 60_000;

/** Put a run's end on record, exactly once: every write is fenced by the attempt. @throws when it cannot be. */
export async function recordEnd(task: RunningTask, end: RunEnd, deps: RunDeps): Promise<void> {
  const { database, log } = deps;
  if (end.kind === "lost") {
    log.warn("the task was taken over by somebody else; nothing is written");
    return;
  }
  const { id: task_id, attempt } = task;
  const written = await persistently(() => {
    if (end.kind === "requeue")
      return requeueTask(database.db, task_id, attempt, { delay_ms: 0, note: end.note });
    if (end.kind === "retry" && attempt < task.max_attempts) {
      const note = `${end.error.message} Trying again (${attempt} of ${task.max_attempts}).`;
      return requeueTask(database.db, task_id, attempt, { delay_ms: backoff(attempt), note });
    }
    if (end.kind === "retry") {
      return finishTask(database.db, { task_id, attempt, state: "failed", error: end.error });
    }
    const { state, error, change, plan: steps } = end;
    const plan = steps && { steps, pendingLimit: deps.config.queue.pendingPerUser };
    return finishTask(database.db, { task_id, attempt, state, error, change, plan });
  }).catch((error: unknown) => {
    // A change the project cannot take fails the task; it must not stay without an end.
    if (!(error instanceof AppError) || error.code === "Unavailable" || error.code === "Timeout") throw error;
    const told = toTaskError(error);
    return finishTask(database.db, { task_id, attempt, state: "failed", error: told });
  });
  if (written)
    log.info({ end: end.kind, ...(end.kind === "finish" ? { state: end.state } : {}) }, "run ended");
  else log.warn("the task's end was already on record");
}

/** While the database is away for a moment: again and again, as long as the lease may last. */
async function persistently(write: () => Promise<boolean>): Promise<boolean> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await write();
    } catch (error) {
      const again = error instanceof AppError && error.code === "Unavailable";
      if (!again || attempt === TRIES) throw error;
      await sleep(TRY_PAUSE_MS);
    }
  }
}

/** Exponential with half of it random, so that what broke together does not come back together; ms. */
function backoff(attempt: number): number {
  const full = Math.min(MAX_BACKOFF_MS, BACKOFF_MS * 2 ** (attempt - 1));
  return full / 2 + (Math.random() * full) / 2;
}
