/** NOTIFY: there may be a task to claim, or a place has become free. No payload. */
export const QUEUE_CHANNEL = "cds_queue";

/** NOTIFY: a running task is to be cancelled. Payload: the task's id. */
export const CANCEL_CHANNEL = "cds_cancel";

/** NOTIFY: a task's log has grown. Payload: `task_id:last_seq`. */
export const EVENTS_CHANNEL = "cds_events";

/** NOTIFY: a running task is paused or goes on. Payload: `+` or `-`, and the task's id. */
export const PAUSE_CHANNEL = "cds_pause";
