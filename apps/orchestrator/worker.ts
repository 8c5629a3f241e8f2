import { setTimeout as sleep } from "node:timers/promises";
import { HeldConnection } from "#database/held-connection.ts";
import {
  CANCEL_CHANNEL,
  type ClaimedTask,
  claimTasks,
  heartbeat,
  PAUSE_CHANNEL,
  QUEUE_CHANNEL,
  reapExpired,
  removeInstance,
  renewLeases,
} from "#database/queue/index.ts";
import type { Admission, PoolLoad } from "#platform/host/admission.ts";
import type { AdmissionReason } from "#schemas";
import { LeaseRenewals } from "./run/lease-renewals.ts";
import type { RunDeps } from "./run/run-deps.ts";
import { TaskRun } from "./run/task-run.ts";

const TICK_MS = 900;
/**
 * Tasks of one claim: so many begin before the machine is looked at again. One by one, a thousand that wait took 20 and 51 s
 * to be done instead of 16 (two runs each of the bench of agents).
 */
const CLAIM_AT_ONCE = 16;
const HEARTBEAT_MS = 4000;
/** After the grace period runs are told to stop; their ends are put on record within this. */
const STOP_MS = 8000;
/** Part of a lease for which renewals are gathered. */
const GATHER_SHARE = 1 / 40;

export interface WorkerDeps extends Omit<RunDeps, "leases"> {
  readonly admission: Admission;
  /** What processes that start and end mean for memory. */
  load(): PoolLoad;
}

/** Takes tasks from the queue while the machine has room for them, and sees each one to its end. */
export class Worker {
  readonly #deps: WorkerDeps;
  readonly #leases: LeaseRenewals;
  /** For renewals: they do not queue behind the statements of a thousand runs. */
  readonly #connection: HeldConnection;
  readonly #active = new Map<string, { run: TaskRun; ended: Promise<void> }>();
  readonly #closing = new AbortController();
  readonly #unlisten: (() => Promise<void>)[] = [];
  #wake = Promise.withResolvers<void>();
  #loop: Promise<void> = Promise.resolve();
  #blocked: AdmissionReason | null = null;
  #heartbeatAt = Number.NEGATIVE_INFINITY;
  #reapedAt = Number.NEGATIVE_INFINITY;

  private constructor(deps: WorkerDeps) {
    this.#deps = deps;
    const { database, config } = deps;
    const { leaseMs } = config.queue;
    this.#connection = new HeldConnection(database.db);
    this.#leases = new LeaseRenewals({
      gatherMs: leaseMs * GATHER_SHARE,
      some: (leases) => this.#connection.use((db) => renewLeases(db, leases, leaseMs)),
    });
  }

  /** Start claiming. @throws when the database cannot be listened to. */
  static async start(deps: WorkerDeps): Promise<Worker> {
    const worker = new Worker(deps);
    const { database } = deps;
    const wake = () => worker.#wake.resolve();
    worker.#unlisten.push(
      await database.listen(QUEUE_CHANNEL, wake, wake),
      await database.listen(CANCEL_CHANNEL, (taskId) =>
        worker.#active.get(taskId)?.run.stop.stop("cancelled"),
      ),
      await database.listen(PAUSE_CHANNEL, (word) => worker.#onPause(word)),
    );
    worker.#loop = worker.#run();
    return worker;
  }

  /** Tasks at work, for health and tests. */
  get active(): number {
    return this.#active.size;
  }

  /**
   * Take nothing more; give running tasks `graceMs` to finish, put the rest back into the queue. Resolves when
   * every run has ended.
   */
  async close(graceMs: number): Promise<void> {
    this.#closing.abort();
    this.#wake.resolve();
    await this.#loop;
    for (const unlisten of this.#unlisten) await unlisten().catch(() => undefined);
    await this.#ended(graceMs);
    for (const { run } of this.#active.values()) run.stop.stop("shutdown");
    await this.#ended(STOP_MS);
    this.#connection[Symbol.dispose]();
    const { database, config } = this.#deps;
    await removeInstance(database.db, config.instanceId).catch(() => undefined);
  }

  /** `+` or `-` and a task's id: it is paused, or goes on. */
  #onPause(word: string): void {
    const active = this.#active.get(word.slice(1));
    if (active !== undefined) active.run.paused = word.startsWith("+");
  }

  async #ended(waitMs: number): Promise<void> {
    if (this.#active.size === 0) return;
    const all = Promise.all([...this.#active.values()].map(({ ended }) => ended));
    const timer = new AbortController();
    await Promise.race([all, sleep(waitMs, undefined, { signal: timer.signal })]);
    timer.abort();
  }

  async #run(): Promise<void> {
    const { log } = this.#deps;
    while (!this.#closing.signal.aborted) {
      try {
        await this.#round();
      } catch (error) {
        log.warn({ err: error }, "the queue could not be served, trying again");
      }
      await this.#pause();
    }
  }

  /** Until somebody rings, or a second has passed. */
  async #pause(): Promise<void> {
    const timer = new AbortController();
    const tick = sleep(TICK_MS, undefined, { signal: timer.signal }).catch(() => undefined);
    await Promise.race([this.#wake.promise, tick]);
    timer.abort();
    this.#wake = Promise.withResolvers();
  }

  async #round(): Promise<void> {
    await this.#claimAll();
    const now = performance.now();
    if (now - this.#reapedAt < TICK_MS) return;
    this.#reapedAt = now;
    const { database, log } = this.#deps;
    const reaped = await reapExpired(database.db, [...this.#active.keys()]);
    if (reaped.requeued + reaped.failed + reaped.cancelled > 0)
      log.warn(reaped, "took over tasks of a lost worker");
  }

  async #claimAll(): Promise<void> {
    const { database, config, admission, load } = this.#deps;
    const { maxConcurrent: capacity, perUser, secondsBetweenRequests, leaseMs } = config.queue;
    // Mostly there is one or none.
    for (let wanted = 1; ; wanted = CLAIM_AT_ONCE) {
      await this.#look(capacity);
      if (this.#blocked !== null || this.#active.size >= capacity || this.#closing.signal.aborted) return;
      const limit = admission.fitting(wanted, load());
      const claim = {
        worker_id: config.instanceId,
        capacity,
        per_user: perUser,
        seconds_between: secondsBetweenRequests,
        lease_ms: leaseMs,
      };
      const tasks = await claimTasks(database.db, claim, limit);
      if (tasks.length === 0) return;
      for (const task of tasks) this.#begin(task);
    }
  }

  /** See whether the machine has room, and say so to the others. */
  async #look(capacity: number): Promise<void> {
    const { admission, load, database, config, log } = this.#deps;
    const blocked = await admission.blockedReason(load());
    const changed = blocked !== this.#blocked;
    if (changed)
      log.info({ reason: blocked }, blocked === null ? "takes tasks again" : "takes no tasks for now");
    this.#blocked = blocked;
    const now = performance.now();
    if (!changed && now - this.#heartbeatAt < HEARTBEAT_MS) return;
    await heartbeat(database.db, { id: config.instanceId, capacity, blocked_reason: blocked });
    this.#heartbeatAt = now;
  }

  #begin(task: ClaimedTask): void {
    const { log } = this.#deps;
    const named = log.child({ task_id: task.id, attempt: task.attempt });
    const run = new TaskRun(task, { ...this.#deps, leases: this.#leases, log: named });
    const ended = run.run().finally(() => {
      this.#active.delete(task.id);
      this.#wake.resolve();
    });
    this.#active.set(task.id, { run, ended });
    named.debug({ agent: task.agent, model: task.model }, "run begins");
  }
}
