import { setTimeout as sleep } from "node:timers/promises";
import { type Agent, findAgent } from "#agents";
import { appendEvents } from "#database/events/index.ts";
import { AppError } from "#schemas";
import { DiskGuard } from "#workspaces/disk-guard.ts";
import { Workspace } from "#workspaces/workspace.ts";
import type { Session, Station } from "../runners/runner.ts";
import { briefingOf } from "./briefing.ts";
import { EventWriter } from "./event-writer.ts";
import { DISK_FAILURE, isExpected, startFailure, timeFailure, worthRetry } from "./failures.ts";
import { LeaseKeeper } from "./lease-keeper.ts";
import { PauseGate } from "./pause-gate.ts";
import { recordEnd } from "./record.ts";
import { Rounds } from "./rounds.ts";
import type { RunDeps, RunEnd, RunningTask } from "./run-deps.ts";
import { RunStop } from "./run-stop.ts";
import { Watchdog } from "./watchdog.ts";

/** A cancelled turn that has not ended by then is killed. */
const CANCEL_MS = 2000;
const MAX_EVENT_CHARS = 16 * 1024 * 1024;
const TOKEN_GRACE_SECONDS = 60;

/** One attempt of one task, from its claim to its end on record; nothing of it is left afterwards. */
export class TaskRun {
  readonly stop = new RunStop();
  readonly #task: RunningTask;
  readonly #deps: RunDeps;
  readonly #writer: EventWriter;
  readonly #gate: PauseGate;
  #station: Station | undefined;
  #workspace: Workspace | undefined;
  #session: Session | undefined;
  #watchdog: Watchdog | undefined;
  #rounds: Rounds | undefined;
  #pauseTimer: NodeJS.Timeout | undefined;

  constructor(task: RunningTask, deps: RunDeps) {
    this.#task = task;
    this.#deps = deps;
    this.#writer = new EventWriter({
      append: async (bodies) => (await appendEvents(deps.database.db, owned(task), bodies)) !== null,
      onBroken: (why, error) => {
        if (error !== undefined) deps.log.error({ err: error }, "events could not be stored");
        this.stop.stop(why === "lost" ? "lost" : "events");
      },
      onPressure: (high) => this.#session?.pauseOutput(high),
      maxChars: MAX_EVENT_CHARS,
    });
    this.#gate = new PauseGate((paused) => this.#onPause(paused));
  }

  /** Hold it before its next model call, or let it go on. */
  set paused(paused: boolean) {
    this.#gate.set(paused);
  }

  /** Run it to its end on record. Never throws. */
  async run(): Promise<void> {
    const { id, attempt } = this.#task;
    const { leases, config, log } = this.#deps;
    using _lease = new LeaseKeeper({
      leaseMs: config.queue.leaseMs,
      renew: async () => {
        const lease = await leases.renew(id, attempt);
        // The word itself may have been lost.
        if (lease.alive) this.paused = lease.paused;
        return lease;
      },
      onLost: () => this.stop.stop("lost"),
      onCancel: () => this.stop.stop("cancelled"),
    });
    try {
      const end = await this.#attempt().catch((error: unknown) => this.#judge(error));
      await this.#quieten();
      if (this.#reusable) this.#station?.leaving();
      else await this.#station?.release(false);
      await this.#writer.flush();
      await recordEnd(this.#task, this.stop.reason === "lost" ? { kind: "lost" } : end, this.#deps);
    } catch (error) {
      log.error({ err: error }, "a run could not be brought to its end");
    } finally {
      clearTimeout(this.#pauseTimer);
      await this.#clear();
    }
  }

  get #reusable(): boolean {
    return this.#rounds?.reusable === true;
  }

  async #attempt(): Promise<RunEnd> {
    const agent = findAgent(this.#task.agent);
    if (agent === undefined) throw new AppError("NotFound", `There is no agent ${this.#task.agent}.`);
    const runner = this.#deps.runners[this.#task.runner];
    if (runner === undefined) throw new AppError("NotFound", `There is no runner ${this.#task.runner}.`);
    const onWait = (ahead: number) => this.#note(waiting(ahead));
    const station = await runner.acquire(this.#task, this.stop.signal, onWait);
    this.#station = station;
    const { session, workspace, text } = await this.#prepare(station, agent);
    const { config, taskTokens } = this.#deps;
    const { timeoutMs, silenceMs } = config.run;
    const { id: task_id, user_id, attempt, model } = this.#task;
    // Each trial of a result may take as long as the run, and the next round needs the token after it.
    const longestMs = timeoutMs * (1 + agent.repairRounds) + timeoutMs + config.run.pauseMs;
    const ttlSeconds = Math.ceil(longestMs / 1000) + TOKEN_GRACE_SECONDS;
    const token = await taskTokens.issue({ task_id, user_id, attempt, ttlSeconds });
    this.stop.signal.throwIfAborted();
    using watchdog = new Watchdog({
      timeoutMs,
      silenceMs,
      toolRunning: () => session.toolRunning,
      onTimeout: () => this.stop.stop("timeout"),
      onSilence: () => this.stop.stop("silence"),
    });
    this.#watchdog = watchdog;
    watchdog.paused = this.#gate.paused;
    using _disk = new DiskGuard({
      directory: workspace.area,
      threshold: config.queue.diskThreshold,
      allowedBytes: config.quota.projectBytes,
      onFull: () => this.stop.stop("disk"),
    });
    session.begin({
      token,
      model,
      network: this.#task.network,
      onActivity: () => watchdog.alive(),
      onEvent: (event) => this.#writer.push(event),
      gate: () => this.#gate.pass(this.stop.signal),
    });
    this.#rounds = new Rounds({
      task: this.#task,
      agent,
      session,
      workspace,
      slot: station.slot,
      stop: this.stop,
      deps: this.#deps,
      timeoutMs: timeoutMs + config.run.pauseMs + CANCEL_MS,
      push: (event) => this.#writer.push(event),
      busy: (busy) => {
        watchdog.busy = busy;
      },
    });
    return await this.#rounds.run(text);
  }

  /** The agent, and its files, at the same time; both have settled when this throws. */
  async #prepare(
    station: Station,
    agent: Agent,
  ): Promise<{ session: Session; workspace: Workspace; text: string }> {
    const opening = station.open(agent, this.stop.signal);
    const briefing = briefingOf(this.#task, agent, this.#deps);
    const preparing = briefing.then(({ revision, overlay, colliding }) =>
      Workspace.prepare(this.#deps.database.db, station.place, {
        id: this.#task.id,
        project_id: this.#task.project_id,
        prompt: this.#task.prompt,
        agentConfig: this.#task.agent_config,
        revision,
        overlay,
        colliding,
      }),
    );
    const [opened, prepared] = await Promise.allSettled([opening, preparing]);
    if (opened.status === "fulfilled") this.#session = opened.value;
    if (prepared.status === "fulfilled") this.#workspace = prepared.value;
    if (opened.status === "rejected") throw opened.reason;
    if (prepared.status === "rejected") throw prepared.reason;
    const { text, notes } = await briefing;
    for (const note of notes) this.#note(note);
    return { session: opened.value, workspace: prepared.value, text };
  }

  /** Bring a run that was broken off to rest: a cancelled one gently, every other by ending its process. */
  async #quieten(): Promise<void> {
    const [session, rounds] = [this.#session, this.#rounds];
    if (session === undefined) return;
    const gently = this.stop.reason === "cancelled" && rounds?.asked === true && !session.dead;
    if (!gently || rounds.quiet) {
      session.end();
      return;
    }
    session.cancel();
    try {
      const ended = rounds.turnEnded().then(() => true);
      if (await Promise.race([ended, sleep(CANCEL_MS, false, { ref: false })])) await rounds.settle();
    } catch (error) {
      this.#deps.log.warn({ err: error }, "a cancelled run did not come to rest");
    }
    session.end();
  }

  async #judge(error: unknown): Promise<RunEnd> {
    const { config, log } = this.#deps;
    const reason = this.stop.reason;
    const failed = (told: ReturnType<typeof startFailure>): RunEnd => ({
      kind: "finish",
      state: "failed",
      error: told,
    });
    if (reason === "lost") return { kind: "lost" };
    if (reason === "cancelled") return { kind: "finish", state: "cancelled" };
    if (reason === "shutdown")
      return { kind: "requeue", note: "The server was stopped; the task starts again." };
    if (reason === "paused")
      return { kind: "requeue", note: "It was paused for too long and starts again when it is resumed." };
    if (reason === "disk") return failed(DISK_FAILURE);
    if (reason === "timeout" || reason === "silence") {
      return failed(timeFailure(reason, config.run, this.#session?.modelAsked === true));
    }
    if (!isExpected(error)) log.error({ err: error }, "a run failed");
    else if (reason === undefined) log.info({ err: error }, "a run failed");
    const asked = this.#rounds?.asked === true;
    if (reason === "events" || (!asked && worthRetry(error))) {
      return { kind: "retry", error: startFailure(error) };
    }
    if (!asked || this.#session === undefined) return failed(startFailure(error));
    return failed(await this.#session.explain(error, this.#rounds?.quiet === true));
  }

  async #clear(): Promise<void> {
    try {
      if (this.#reusable) await this.#workspace?.remove();
      await this.#station?.release(this.#reusable);
    } catch (error) {
      this.#deps.log.warn({ err: error }, "a request's directory could not be removed");
      await this.#station?.release(false);
    }
  }

  #onPause(paused: boolean): void {
    if (this.#watchdog !== undefined) this.#watchdog.paused = paused;
    this.#note(paused ? "Paused: it waits before its next model call." : "Goes on.");
    clearTimeout(this.#pauseTimer);
    if (!paused) return;
    // All pauses together: a turn's and a token's time are counted with no more than these.
    const left = this.#deps.config.run.pauseMs - this.#gate.pausedMs;
    this.#pauseTimer = setTimeout(() => this.stop.stop("paused"), Math.max(0, left));
  }

  #note(note: string): void {
    this.#writer.push({ type: "state", state: "running", note });
  }
}

function waiting(ahead: number): string {
  return ahead === 0 ? "Starts next." : `Waits for ${ahead} other ${ahead === 1 ? "start" : "starts"}.`;
}

function owned({ id, attempt }: RunningTask): { task_id: string; attempt: number } {
  return { task_id: id, attempt };
}
