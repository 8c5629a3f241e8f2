import type { TaskEventBody } from "#schemas";

const FLUSH_MS = 50;
/** Events of one statement. */
const MAX_BATCH = 500;
/** Beyond this in memory the agent has to wait. */
const HIGH_WATER_CHARS = 1024 * 1024;
/** A text delta that has grown to this is not joined further. */
const MAX_DELTA_CHARS = 64 * 1024;

export interface EventWriterOptions {
  /** Store a batch; false when the task is no longer ours. */
  append(bodies: TaskEventBody[]): Promise<boolean>;
  /** Called once: the task is no longer ours ("lost"), or the batch could not be stored. */
  onBroken(why: "lost" | "failed", error?: unknown): void;
  /** Too much is waiting to be stored (true), or no longer (false). */
  onPressure(high: boolean): void;
  /** Ceiling for all events of the task, characters of JSON. */
  readonly maxChars: number;
}

/**
 * Collects a task's events and stores them in order, in batches at most 50 ms after they came, one batch at a
 * time. Neighbouring pieces of text become one event; of a tool's progress only the latest counts.
 */
export class EventWriter {
  readonly #options: EventWriterOptions;
  #queue: { body: TaskEventBody; chars: number }[] = [];
  #queued = 0;
  #written = 0;
  #full = false;
  #pressed = false;
  #broken = false;
  #timer: NodeJS.Timeout | undefined;
  #storing: Promise<void> | undefined;

  constructor(options: EventWriterOptions) {
    this.#options = options;
  }

  push(body: TaskEventBody): void {
    if (this.#broken || this.#full) return;
    const last = this.#queue.at(-1);
    const joined = last === undefined ? undefined : join(last.body, body);
    if (last !== undefined && joined !== undefined) {
      this.#queue.pop();
      this.#queued -= last.chars;
      this.#add(joined);
    } else {
      this.#add(body);
    }
    if (this.#written + this.#queued > this.#options.maxChars) {
      this.#full = true;
      this.#add({ type: "state", state: "running", note: "The output is too long; the rest is not shown." });
    }
    this.#press(this.#queued > HIGH_WATER_CHARS);
    this.#timer ??= setTimeout(() => void this.flush(), FLUSH_MS);
  }

  /** Resolves when everything pushed so far is stored, or cannot be. */
  async flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    while (this.#storing !== undefined) await this.#storing;
    if (this.#queue.length === 0 || this.#broken) return;
    this.#storing = this.#store();
    await this.#storing;
    this.#storing = undefined;
    if (this.#queue.length > 0) await this.flush();
  }

  #add(body: TaskEventBody): void {
    const chars = JSON.stringify(body).length;
    this.#queue.push({ body, chars });
    this.#queued += chars;
  }

  async #store(): Promise<void> {
    const batch = this.#queue.splice(0, MAX_BATCH);
    const chars = batch.reduce((sum, item) => sum + item.chars, 0);
    try {
      if (!(await this.#options.append(batch.map((item) => item.body)))) this.#break("lost");
    } catch (error) {
      this.#break("failed", error);
    }
    this.#queued -= chars;
    this.#written += chars;
    this.#press(this.#queued > HIGH_WATER_CHARS);
  }

  #break(why: "lost" | "failed", error?: unknown): void {
    this.#broken = true;
    this.#queue = [];
    this.#queued = 0;
    this.#options.onBroken(why, error);
  }

  #press(high: boolean): void {
    if (high === this.#pressed) return;
    this.#pressed = high;
    this.#options.onPressure(high);
  }
}

/** Two neighbouring events as one, where nothing is lost by it. */
function join(last: TaskEventBody, next: TaskEventBody): TaskEventBody | undefined {
  if ((last.type === "text" || last.type === "thought") && last.type === next.type) {
    const long = last.delta.length + next.delta.length > MAX_DELTA_CHARS;
    return long ? undefined : { type: last.type, delta: last.delta + next.delta };
  }
  if (last.type === "tool" && next.type === "tool" && last.call_id === next.call_id) {
    const both = last.status === next.status && last.status === "running";
    return both ? { ...last, ...next } : undefined;
  }
  return undefined;
}
