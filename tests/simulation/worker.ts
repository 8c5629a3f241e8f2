import { Attempt } from "./attempt.ts";
import type { Audited } from "./audited.ts";
import type { Holder } from "./judge.ts";
import type { Scenario } from "./scenario.ts";
import { type Fault, Process, type World } from "./world.ts";

/** As in `apps/orchestrator/worker.ts` and `apps/llmserver/calls/sweeper.ts`. */
const TICK_MS = 900;
const HEARTBEAT_MS = 4000;
const STOP_MS = 8000;
const SWEEP_MS = 60_000;
const SWEEP_GRACE_MS = 60_000;

export interface Site {
  readonly world: World;
  readonly database: Audited;
  readonly scenario: Scenario;
}

/**
 * A server process: takes tasks from the queue, sees them to their end, takes over those of lost workers. Each of
 * its lives is a process of its own to the database.
 */
export class Worker {
  readonly process: Process;
  readonly #site: Site;
  #active = new Map<string, Attempt>();
  #id = "";
  #lives = 0;
  #waiting = false;
  /** Somebody rang while we were busy. */
  #rung = false;
  #round = 0;
  #closing = false;
  #heartbeatAt = Number.NEGATIVE_INFINITY;
  #reapedAt = Number.NEGATIVE_INFINITY;

  constructor(index: number, rate: number, site: Site) {
    this.#site = site;
    const { faults } = site.scenario;
    this.process = new Process(index, site.world, { rate, faults, befall: (fault) => this.#befall(fault) });
    this.#start(false);
  }

  /** Whether it is at work on a task. */
  has(task_id: string): boolean {
    return this.#active.has(task_id);
  }

  /** There may be something to do; the message may be lost, like everything. */
  ring(): void {
    const { process } = this;
    const { world } = this.#site;
    if (!process.reachable) return;
    world.at(
      world.now + process.random.int(1, 15),
      () => (this.#waiting ? this.#loop() : this.#ringLater()),
      process,
    );
  }

  /** Something is to be known to whoever runs this task. */
  tell(task_id: string, what: (attempt: Attempt) => void): void {
    const { process } = this;
    const { world } = this.#site;
    if (!process.reachable) return;
    const told = () => {
      const attempt = this.#active.get(task_id);
      if (attempt !== undefined) what(attempt);
    };
    world.at(world.now + process.random.int(1, 15), told, process);
  }

  #ringLater(): void {
    this.#rung = true;
  }

  #start(sameId: boolean): void {
    const { process } = this;
    const { world, database } = this.#site;
    if (!sameId || this.#id === "") this.#id = `w${process.index}.${++this.#lives}`;
    this.#active = new Map();
    this.#closing = false;
    this.#waiting = false;
    this.#heartbeatAt = this.#reapedAt = Number.NEGATIVE_INFINITY;
    const started = world.now;
    process.begin();
    this.#sweep(() => database.deadCalls(world.now - started, this.#id));
    this.#sweepLater();
    this.#loop();
  }

  #sweepLater(): void {
    this.process.after(SWEEP_MS, () => {
      this.#sweep(() => this.#site.database.deadCalls(SWEEP_GRACE_MS));
      this.#sweepLater();
    });
  }

  #sweep(find: () => string[]): void {
    const { database } = this.#site;
    const release = (ids: readonly string[]) => {
      for (const id of ids) this.process.ask("sweep", () => database.release(id), nothing, nothing);
    };
    this.process.ask("look for dead calls", find, release, nothing);
  }

  #befall(fault: Fault): void {
    const { process } = this;
    const { world } = this.#site;
    if (process.healthySince === Number.POSITIVE_INFINITY) return;
    world.note(() => `process ${process.index}: ${JSON.stringify(fault)}`);
    if (fault.kind === "kill") this.#die(fault.restart_ms, fault.same_id);
    if (fault.kind === "pause" || fault.kind === "cut") process.hinder(world.now + fault.ms, fault.kind);
    if (fault.kind === "terminate") this.#close(fault.grace_ms, fault.restart_ms);
  }

  #die(restart_ms: number, sameId: boolean): void {
    const { process } = this;
    const { world } = this.#site;
    process.end();
    world.at(world.now + restart_ms, () => this.#start(sameId), process);
  }

  /** Take nothing more; what does not end in time is put back; then the process ends. */
  #close(grace_ms: number, restart_ms: number): void {
    const { process } = this;
    const { database } = this.#site;
    this.#closing = true;
    process.healthySince = Number.POSITIVE_INFINITY;
    const leave = () => {
      process.ask("leave", () => database.removeInstance(this.#id), nothing, nothing);
      process.after(50, () => this.#die(restart_ms, false));
    };
    this.#whenEmpty(grace_ms, () => {
      for (const attempt of this.#active.values()) attempt.shutdown();
      this.#whenEmpty(STOP_MS, leave);
    });
  }

  #whenEmpty(within_ms: number, then: () => void): void {
    if (this.#active.size === 0 || within_ms <= 0) then();
    else this.process.after(Math.min(100, within_ms), () => this.#whenEmpty(within_ms - 100, then));
  }

  // --- the loop: claim all there is room for, take over what is lost, wait ----------------------

  #loop(): void {
    this.#waiting = false;
    this.#rung = false;
    this.#round += 1;
    if (!this.#closing) this.#claim();
  }

  #claim(): void {
    const { process } = this;
    const { database, scenario } = this.#site;
    if (process.clock() - this.#heartbeatAt >= HEARTBEAT_MS) {
      const beat = () => {
        this.#heartbeatAt = process.clock();
        this.#claim();
      };
      process.ask(
        "heartbeat",
        () => database.heartbeat(this.#id),
        beat,
        () => this.#rest(),
      );
      return;
    }
    if (this.#closing || this.#active.size >= scenario.capacity) {
      this.#reap();
      return;
    }
    const { capacity, lease_ms, aging, limits } = scenario;
    const claim = { worker_id: this.#id, capacity, lease_ms, aging, ...limits };
    const claimed = (holder: Holder | null) => {
      if (holder === null) {
        this.#reap();
        return;
      }
      this.#begin(holder);
      this.#claim();
    };
    process.ask(
      "claim",
      () => database.claim(claim),
      claimed,
      () => this.#rest(),
    );
  }

  #begin(holder: Holder): void {
    const attempt = new Attempt(holder, this.process, this.#id, this.#site, () => {
      if (this.#active.get(holder.task_id) === attempt) this.#active.delete(holder.task_id);
      if (this.#waiting) this.#loop();
      else this.#rung = true;
    });
    this.#active.set(holder.task_id, attempt);
  }

  #reap(): void {
    const { process } = this;
    const { database } = this.#site;
    if (process.clock() - this.#reapedAt < TICK_MS) {
      this.#rest();
      return;
    }
    this.#reapedAt = process.clock();
    const own = [...this.#active.keys()];
    const next = (ids: readonly string[]): void => {
      const [id, ...others] = ids;
      if (id === undefined) {
        this.#rest();
        return;
      }
      process.ask(
        `reap ${id}`,
        () => database.reap(id),
        () => next(others),
        () => this.#rest(),
      );
    };
    process.ask(
      "look for lost tasks",
      () => database.expired(own),
      next,
      () => this.#rest(),
    );
  }

  #rest(): void {
    if (this.#rung) {
      this.process.after(1, () => this.#loop());
      return;
    }
    this.#waiting = true;
    const round = this.#round;
    this.process.after(TICK_MS, () => {
      if (this.#waiting && this.#round === round) this.#loop();
    });
  }
}

function nothing(): void {}
