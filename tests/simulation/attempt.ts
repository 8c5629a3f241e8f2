import { worthRetry } from "#apps/orchestrator/run/failures.ts";
import { LeaseKeeper } from "#apps/orchestrator/run/lease-keeper.ts";
import { RunStop } from "#apps/orchestrator/run/run-stop.ts";
import { AppError } from "#schemas/errors.ts";
import type { Holder } from "./judge.ts";
import type { Random } from "./random.ts";
import type { Renewed } from "./store.ts";
import type { Site } from "./worker.ts";
import type { Process } from "./world.ts";

/** As in `apps/orchestrator/run/record.ts` and `apps/llmserver/calls/charge.ts`. */
const TRIES = 8;
const TRY_PAUSE_MS = 250;
const BACKOFF_MS = 1000;
const WRITE_ATTEMPTS = 4;
const MOST_MODEL_CALLS = 3;
/** What the database's silence is told as. */
const AWAY = new AppError("Unavailable", "The database is away.");
/** What may go wrong before the agent has its prompt. */
const START_FAILURES = [
  AWAY,
  new AppError("Timeout", "x"),
  new AppError("NotFound", "x"),
  new Error("x"),
] as const;

type End =
  | { readonly kind: "finish"; readonly state: "completed" | "failed" | "cancelled" }
  | { readonly kind: "retry" }
  | { readonly kind: "requeue" };

/** A run of one task, from its claim to its end on record; its lease is kept by the product's own keeper. */
export class Attempt {
  readonly #holder: Holder;
  readonly #process: Process;
  readonly #instance_id: string;
  readonly #site: Site;
  readonly #random: Random;
  readonly #ended: () => void;
  readonly #stop = new RunStop();
  readonly #keeper: LeaseKeeper;
  #call: string | undefined;
  #calls = 0;
  #ending = false;
  #paused = false;
  /** What goes on when the pause is over. */
  #held: (() => void) | undefined;

  constructor(holder: Holder, process: Process, instance_id: string, site: Site, ended: () => void) {
    this.#holder = holder;
    this.#process = process;
    this.#instance_id = instance_id;
    this.#site = site;
    this.#ended = ended;
    // Of the task and attempt alone, so that a shorter schedule does not change what the run does.
    this.#random = site.world.random(1000 + Number(holder.task_id.slice(1)) * 16 + (holder.attempt % 16));
    const { lease_ms: leaseMs } = site.scenario;
    this.#keeper = new LeaseKeeper({
      leaseMs,
      clock: { now: () => process.clock(), every: (ms, tick) => this.#every(ms, tick) },
      renew: () => this.#renew(leaseMs),
      onLost: () => this.#break("lost"),
      onCancel: () => this.#break("cancelled"),
    });
    this.#prepare();
  }

  cancel(): void {
    this.#break("cancelled");
  }

  shutdown(): void {
    this.#break("shutdown");
  }

  /** It is held before its next model call, and goes on there. */
  pause(paused: boolean): void {
    this.#paused = paused;
    if (paused || this.#held === undefined) return;
    const goOn = this.#held;
    this.#held = undefined;
    if (!this.#stopped()) goOn();
  }

  #every(ms: number, tick: () => void): () => void {
    let going = true;
    const again = () => {
      if (!going) return;
      tick();
      this.#process.after(ms, again);
    };
    this.#process.after(ms, again);
    return () => {
      going = false;
    };
  }

  #renew(lease_ms: number): Promise<Renewed> {
    const { world, database } = this.#site;
    return new Promise((resolve, reject) => {
      const settle = (how: () => void) => {
        world.settling = true;
        how();
      };
      this.#process.ask(
        `renew ${this.#name}`,
        () => database.renew(this.#holder, lease_ms),
        (renewed) => {
          if (renewed.alive) this.pause(renewed.paused);
          settle(() => resolve(renewed));
        },
        () => settle(() => reject(AWAY)),
      );
    });
  }

  get #name(): string {
    return `${this.#holder.task_id}/${this.#holder.attempt}`;
  }

  // --- the work: prepare, some model calls with something told of each, a result ----------------

  #prepare(): void {
    const random = this.#random;
    this.#process.after(random.int(5, 300), () => {
      if (this.#stopped()) return;
      if (random.chance(0.15)) {
        const again = worthRetry(random.pick(START_FAILURES));
        this.#end(again ? { kind: "retry" } : { kind: "finish", state: "failed" });
      } else this.#askModel(random.int(0, MOST_MODEL_CALLS));
    });
  }

  #askModel(left: number): void {
    const random = this.#random;
    if (this.#paused) {
      this.#held = () => this.#askModel(left);
      return;
    }
    if (left === 0) {
      this.#tell(() => this.#end({ kind: "finish", state: random.chance(0.9) ? "completed" : "failed" }));
      return;
    }
    const { database } = this.#site;
    const { task_id } = this.#holder;
    const id = `c${task_id}.${this.#holder.attempt}.${++this.#calls}`;
    const user_id = this.#user;
    const call = { id, user_id, instance_id: this.#instance_id, hold: random.int(0, 60), task: this.#holder };
    const failed = () => this.#end({ kind: "finish", state: "failed" });
    const opened = (answer: string) => {
      if (answer !== "ok") {
        if (!this.#stopped()) failed();
        return;
      }
      // Its reader may be gone by now: then nothing is used, and nothing paid.
      if (this.#stopped()) {
        closeCall(id, undefined, this.#process, this.#site);
        return;
      }
      this.#call = id;
      this.#process.after(random.int(20, random.chance(0.3) ? 6000 : 900), () => this.#answered(id, left));
    };
    // Whether it was opened is not known: the next try is a call of its own.
    this.#process.ask(
      `open ${id}`,
      () => database.open(call),
      opened,
      () => {
        if (this.#stopped()) return;
        if (random.chance(0.5)) this.#askModel(left);
        else failed();
      },
    );
  }

  #answered(id: string, left: number): void {
    if (this.#call !== id) return;
    this.#call = undefined;
    const random = this.#random;
    closeCall(id, random.chance(0.9) ? random.int(0, 90) : undefined, this.#process, this.#site);
    this.#tell(() => this.#askModel(left - 1));
  }

  get #user(): string {
    const nth = Number(this.#holder.task_id.slice(1));
    return `u${this.#site.scenario.tasks.find((task) => task.nth === nth)?.user ?? 0}`;
  }

  #tell(then: () => void): void {
    const { database } = this.#site;
    const told = (written: boolean) => {
      if (!written) this.#break("lost");
      if (!this.#stopped()) then();
    };
    this.#process.ask(
      `tell of ${this.#name}`,
      () => database.append(this.#holder, "x"),
      told,
      () => {
        this.#break("events");
      },
    );
  }

  // --- the end ---------------------------------------------------------------------------------

  #stopped(): boolean {
    return this.#stop.signal.aborted || this.#ending;
  }

  #break(why: "lost" | "cancelled" | "shutdown" | "events"): void {
    const first = !this.#stopped();
    this.#stop.stop(why);
    if (!first) return;
    const used = this.#random.chance(0.5) ? this.#random.int(0, 60) : undefined;
    if (this.#call !== undefined) closeCall(this.#call, used, this.#process, this.#site);
    this.#call = undefined;
    // What is at work inside comes to rest first.
    this.#process.after(this.#random.int(1, 400), () => this.#end(this.#judged()));
  }

  #judged(): End {
    const { reason } = this.#stop;
    if (reason === "cancelled") return { kind: "finish", state: "cancelled" };
    return { kind: reason === "shutdown" ? "requeue" : "retry" };
  }

  #end(end: End): void {
    if (this.#ending) return;
    this.#ending = true;
    this.#record(end, 1);
  }

  /** As `recordEnd`: nothing of a lost task, everything else again and again while the database is away. */
  #record(end: End, tried: number): void {
    if (this.#stop.reason === "lost") {
      this.#leave();
      return;
    }
    const again = () => {
      if (tried === TRIES) this.#leave();
      else this.#process.after(TRY_PAUSE_MS, () => this.#record(end, tried + 1));
    };
    this.#process.ask(
      `end ${this.#name}`,
      () => this.#write(end),
      () => this.#leave(),
      again,
    );
  }

  #write(end: End): boolean {
    const { database, scenario } = this.#site;
    const { task_id, attempt } = this.#holder;
    if (end.kind === "requeue") return database.requeue(this.#holder, 0, "shutdown");
    if (end.kind === "finish") {
      const change = end.state === "completed" ? `change of ${task_id}/${attempt}` : undefined;
      return database.finish(this.#holder, end.state, change);
    }
    const most = scenario.tasks.find(({ nth }) => `t${nth}` === task_id)?.max_attempts ?? 1;
    if (attempt >= most) return database.finish(this.#holder, "failed");
    return database.requeue(
      this.#holder,
      (BACKOFF_MS * 2 ** (attempt - 1) * (1 + this.#random.next())) / 2,
      "retry",
    );
  }

  #leave(): void {
    this.#keeper[Symbol.dispose]();
    this.#ended();
  }
}

/** Charge for what was used, or give the hold back; as `Charge` does it. `used` undefined: nothing came. */
export function closeCall(
  id: string,
  used: number | undefined,
  process: Process,
  site: Site,
  tried = 1,
): void {
  const { database } = site;
  const close = () => (used === undefined ? database.release(id) : database.settle(id, used));
  const again = () => {
    if (tried < WRITE_ATTEMPTS)
      process.after(100 * 3 ** tried, () => closeCall(id, used, process, site, tried + 1));
  };
  process.ask(`close ${id}`, close, () => undefined, again);
}
