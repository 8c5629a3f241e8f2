/** The queue's face. */
export { type Canceller, requestCancel } from "./cancel.ts";
export { CANCEL_CHANNEL, EVENTS_CHANNEL, QUEUE_CHANNEL } from "./channels.ts";
export { type Claim, type ClaimedTask, claimTask, type Limits } from "./claim.ts";
export { type Enqueued, enqueueTask, type NewTask } from "./enqueue.ts";
export { type Finish, finishTask, requeueTask } from "./finish.ts";
export { type Heartbeat, heartbeat, removeInstance } from "./instances.ts";
export { type Reaped, reapExpired, renewLease } from "./lease.ts";
export { findByKey, getTask, listTasks, type TaskFilter, type TaskPage, usageOf } from "./read.ts";
export { type QueueView, queueView, type ViewLimits } from "./view.ts";
