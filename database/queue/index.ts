/** The queue's face. */
export type { AgentPlan } from "./agent-plan.ts";
export { type Canceller, requestCancel, requestCancelPlan } from "./cancel.ts";
export { CANCEL_CHANNEL, EVENTS_CHANNEL, PAUSE_CHANNEL, QUEUE_CHANNEL } from "./channels.ts";
export { type Claim, type ClaimedTask, claimTask, type Limits } from "./claim.ts";
export { claimTasks } from "./claim-many.ts";
export { type Enqueued, enqueueTask, type NewTask } from "./enqueue.ts";
export { type Finish, finishTask, requeueTask } from "./finish.ts";
export type { TaskExtras } from "./insert.ts";
export { type Heartbeat, heartbeat, removeInstance } from "./instances.ts";
export { type Lease, type Reaped, type Renewed, reapExpired, renewLeases } from "./lease.ts";
export { pauseTask, resumeTask } from "./pause.ts";
export { type EnqueuedPlan, enqueuePlan, type NewPlan, type NewStep } from "./plan.ts";
export {
  type Before,
  findByKey,
  findPlanByKey,
  getPlan,
  getTask,
  listTasks,
  planTasks,
  stepsBefore,
  type TaskFilter,
  type TaskPage,
  usageOf,
} from "./read.ts";
export { type SessionTurn, sessionHistory } from "./session.ts";
export { checkSteps } from "./steps.ts";
export { type QueueView, queueView, type ViewLimits } from "./view.ts";
