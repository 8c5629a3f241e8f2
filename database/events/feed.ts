import type { Log } from "#platform/log.ts";
import { AppError, isTerminal, MAX_SEQ, type TaskEvent } from "#schemas";
import type { Database } from "../open.ts";
import { EVENTS_CHANNEL } from "../queue/channels.ts";
import { taskNotFound } from "../queue/read.ts";
import type { Db } from "../schema.ts";
import { type Page, type Place, readPages } from "./read.ts";

/** Takes a page in order; the next one waits for its promise. A failure ends the subscription. */
export type OnEvents = (events: readonly TaskEvent[]) => void | Promise<void>;

/** Called once: without an error after `done`, with one when the feed cannot go on. Not after an unsubscribe. */
export type OnEnd = (error?: unknown) => void;

export interface FeedOptions {
  /** How often everybody's log is looked at without being told, ms: a NOTIFY can be lost. */
  readonly pollMs?: number;
  /** The most one subscriber is given at once. */
  readonly pageEvents?: number;
  /** The JSON text after which a page ends, bytes. */
  readonly pageBytes?: number;
}

const POLL_MS = 2000;
const PAGE_EVENTS = 200;
const PAGE_BYTES = 256 * 1024;
/** Subscribers read for in one statement. */
const READ_TOGETHER = 32;

interface Subscription extends Place {
  after_seq: number;
  /** The highest seq we were told of. */
  announced: number;
  /** A page is being read for it or taken by it. */
  busy: boolean;
  closed: boolean;
  readonly onEvents: OnEvents;
  readonly onEnd: OnEnd;
}

/**
 * Live logs of tasks, over LISTEN: every event after a seq, in order, none missing, none twice, to the end.
 * One reader serves all subscribers with one statement at a time, so watchers cost one connection however many
 * they are; a slow one holds a single page and is read for again when it has taken that.
 */
export class EventFeed implements AsyncDisposable {
  readonly #db: Db;
  readonly #log: Log;
  readonly #limits: { rows: number; bytes: number };
  readonly #byTask = new Map<string, Set<Subscription>>();
  readonly #ready = new Set<Subscription>();
  readonly #poll: NodeJS.Timeout;
  #unlisten: () => Promise<void> = async () => undefined;
  #reading: Promise<void> | undefined;
  #closed = false;

  /** Start listening; the owner closes it. */
  static async open(
    database: Pick<Database, "db" | "listen">,
    log: Log,
    options: FeedOptions = {},
  ): Promise<EventFeed> {
    const feed = new EventFeed(database.db, log, options);
    feed.#unlisten = await database.listen(
      EVENTS_CHANNEL,
      (payload) => feed.#announce(payload),
      () => feed.#markAll(),
    );
    return feed;
  }

  private constructor(db: Db, log: Log, options: FeedOptions) {
    this.#db = db;
    this.#log = log;
    this.#limits = { rows: options.pageEvents ?? PAGE_EVENTS, bytes: options.pageBytes ?? PAGE_BYTES };
    this.#poll = setInterval(() => this.#markAll(), options.pollMs ?? POLL_MS);
    this.#poll.unref();
  }

  /** How many subscriptions are open. */
  get size(): number {
    let count = 0;
    for (const subscriptions of this.#byTask.values()) count += subscriptions.size;
    return count;
  }

  /**
   * Follow a task from after a seq (0 = from its first event). Who may see it is the caller's to check.
   * @returns ends the subscription; no callback is begun after that.
   */
  subscribe(task_id: string, after_seq: number, onEvents: OnEvents, onEnd: OnEnd): () => void {
    const subscription: Subscription = {
      task_id,
      // A larger one must not fail the statement that others share.
      after_seq: Math.min(after_seq, MAX_SEQ),
      announced: 0,
      busy: false,
      closed: false,
      onEvents,
      onEnd,
    };
    if (this.#closed) this.#end(subscription, shuttingDown());
    else {
      const others = this.#byTask.get(task_id);
      if (others === undefined) this.#byTask.set(task_id, new Set([subscription]));
      else others.add(subscription);
      this.#mark(subscription);
    }
    return () => this.#remove(subscription);
  }

  /** Ends every subscription with Unavailable. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#poll);
    for (const subscriptions of this.#byTask.values()) {
      for (const subscription of subscriptions) this.#end(subscription, shuttingDown());
    }
    await this.#unlisten();
    await this.#reading;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #announce(payload: string): void {
    const colon = payload.lastIndexOf(":");
    const seq = Number(payload.slice(colon + 1));
    for (const subscription of this.#byTask.get(payload.slice(0, colon)) ?? []) {
      if (seq > subscription.announced) subscription.announced = seq;
      if (seq > subscription.after_seq) this.#mark(subscription);
    }
  }

  #markAll(): void {
    for (const subscriptions of this.#byTask.values()) {
      for (const subscription of subscriptions) this.#mark(subscription);
    }
  }

  #mark(subscription: Subscription): void {
    if (subscription.closed || subscription.busy) return;
    this.#ready.add(subscription);
    this.#reading ??= this.#read();
  }

  async #read(): Promise<void> {
    while (this.#ready.size > 0) {
      const batch = [...this.#ready].slice(0, READ_TOGETHER);
      for (const subscription of batch) {
        this.#ready.delete(subscription);
        subscription.busy = true;
      }
      await this.#serve(batch);
    }
    // In the same turn as the last look at what is ready: nobody marked later finds a reader that has gone.
    this.#reading = undefined;
  }

  async #serve(batch: readonly Subscription[]): Promise<void> {
    const places = new Map<string, Place>();
    for (const { task_id, after_seq } of batch) places.set(`${task_id}:${after_seq}`, { task_id, after_seq });
    const quiet: Subscription[] = [];
    try {
      const pages = await readPages(this.#db, [...places.values()], this.#limits);
      const byPlace = new Map([...places.keys()].map((key, index) => [key, pages[index]]));
      for (const subscription of batch) {
        const page = byPlace.get(`${subscription.task_id}:${subscription.after_seq}`);
        const last = page?.events.at(-1);
        if (page === undefined || last === undefined) quiet.push(subscription);
        else void this.#deliver(subscription, page, last);
      }
    } catch (error) {
      this.#putOff(batch, error);
    }
    if (quiet.length > 0) await this.#endOver(quiet).catch((error) => this.#putOff(quiet, error));
  }

  /** The next look at everybody's log, at most one interval away, takes these up again. */
  #putOff(subscriptions: readonly Subscription[], error: unknown): void {
    for (const subscription of subscriptions) subscription.busy = false;
    this.#log.warn({ err: error }, "task events cannot be read, trying again");
  }

  async #deliver(subscription: Subscription, { events, full }: Page, last: TaskEvent): Promise<void> {
    try {
      if (!subscription.closed) await subscription.onEvents(events);
    } catch (error) {
      this.#end(subscription, error);
      return;
    }
    subscription.busy = false;
    subscription.after_seq = last.seq;
    if (last.type === "done") this.#end(subscription);
    else if (full || subscription.announced > last.seq) this.#mark(subscription);
  }

  /** Nothing new: either nothing has happened, or the subscriber had everything already, or the task is gone. */
  async #endOver(quiet: readonly Subscription[]): Promise<void> {
    const tasks = await this.#db
      .selectFrom("tasks")
      .select(["id", "state", "last_seq"])
      .where("id", "in", [...new Set(quiet.map(({ task_id }) => task_id))])
      .execute();
    const byId = new Map(tasks.map((task) => [task.id, task]));
    for (const subscription of quiet) {
      subscription.busy = false;
      const task = byId.get(subscription.task_id);
      if (task === undefined) this.#end(subscription, taskNotFound(subscription.task_id));
      else if (task.last_seq > subscription.after_seq) this.#mark(subscription);
      else if (isTerminal(task.state)) this.#end(subscription);
    }
  }

  #end(subscription: Subscription, error?: unknown): void {
    if (subscription.closed) return;
    this.#remove(subscription);
    try {
      subscription.onEnd(error);
    } catch (failure) {
      this.#log.error({ err: failure }, "a subscriber's end failed");
    }
  }

  #remove(subscription: Subscription): void {
    subscription.closed = true;
    this.#ready.delete(subscription);
    const subscriptions = this.#byTask.get(subscription.task_id);
    subscriptions?.delete(subscription);
    if (subscriptions?.size === 0) this.#byTask.delete(subscription.task_id);
  }
}

function shuttingDown(): AppError {
  return new AppError("Unavailable", "The server is shutting down.", {
    hint: "Subscribe again after the last seq you have.",
    retry_after_seconds: 2,
  });
}
