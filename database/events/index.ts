/** The face of the tasks' event log. */
export { appendEvents } from "./append.ts";
export { EventFeed, type FeedOptions, type OnEnd, type OnEvents } from "./feed.ts";
export { readEvents } from "./read.ts";
