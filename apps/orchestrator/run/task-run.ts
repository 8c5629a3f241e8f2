import { setTimeout as sleep } from "node:timers/promises";
import { type Agent, findAgent } from "#agents";
import { appendEvents } from "#database/events/index.ts";
import { renewLease } from "#database/queue/index.ts";
import { AppError, type TaskEventBody } from "#schemas";
import { collectChanges } from "#workspaces/collect.ts";
import { DiskGuard } from "#workspaces/disk-guard.ts";
import { Workspace } from "#workspaces/workspace.ts";
import { AcpError } from "../acp/client.ts";
import type { BridgeRun } from "../bridge/bridge.ts";
import { UpdateTranslator } from "../opencode/events.ts";
import { BRIDGE_URL, type OpencodeProcess } from "../opencode/process.ts";
import type { Lease } from "../opencode/warm-pool.ts";
import { EventWriter } from "./event-writer.ts";
import {
  DISK_FAILURE,
  finishFailure,
  runFailure,
  startFailure,
  timeFailure,
  worthRetry,
} from "./failures.ts";
import { LeaseKeeper } from "./lease-keeper.ts";
import { propose } from "./propose.ts";
import { recordEnd } from "./record.ts";
import type { RunDeps, RunEnd, RunningTask } from "./run-deps.ts";
import { RunStop, RunStopped } from "./run-stop.ts";
import { Watchdog } from "./watchdog.ts";

/** A cancelled prompt that has not ended by then is killed. */
const CANCEL_MS = 2000;
/** The exit of a process is known a moment after its output has ended. */
const EXIT_MS = 1000;
const MAX_EVENT_CHARS = 16 * 1024 * 1024;
const TOKEN_GRACE_SECONDS = 60;

/** One attempt of one task, from its claim to its end on record; nothing of it is left afterwards. */
export class TaskRun {
  readonly stop = new RunStop();
  readonly #task: RunningTask;
  readonly #deps: RunDeps;
  readonly #writer: EventWriter;
  #lease: Lease | undefined;
  #workspace: Workspace | undefined;
  #opencode: OpencodeProcess | undefined;
  #calls: BridgeRun | undefined;
  #prompt: Promise<string> | undefined;
  /** The agent has its prompt: what fails from here on is not tried again. */
  #sent = false;
  /** Nothing of the run is at work any more, and its files are back. */
  #quiet = false;
  #reusable = false;

  constructor(task: RunningTask, deps: RunDeps) {
    this.#task = task;
    this.#deps = deps;
    this.#writer = new EventWriter({
      append: async (bodies) => (await appendEvents(deps.database.db, owned(task), bodies)) !== null,
      onBroken: (why, error) => {
        if (error !== undefined) deps.log.error({ err: error }, "events could not be stored");
        this.stop.stop(why === "lost" ? "lost" : "events");
      },
      onPressure: (high) => this.#opencode?.pauseOutput(high),
      maxChars: MAX_EVENT_CHARS,
    });
  }

  /** Run it to its end on record. Never throws. */
  async run(): Promise<void> {
    const { id, attempt } = this.#task;
    const { database, config, log } = this.#deps;
    using _lease = new LeaseKeeper({
      leaseMs: config.queue.leaseMs,
      renew: () => renewLease(database.db, id, attempt, config.queue.leaseMs),
      onLost: () => this.stop.stop("lost"),
      onCancel: () => this.stop.stop("cancelled"),
    });
    try {
      const end = await this.#attempt().catch((error: unknown) => this.#judge(error));
      await this.#quieten();
      if (!this.#reusable) await this.#lease?.release(false);
      else this.#lease?.leaving();
      await this.#writer.flush();
      await recordEnd(this.#task, this.stop.reason === "lost" ? { kind: "lost" } : end, this.#deps);
    } catch (error) {
      log.error({ err: error }, "a run could not be brought to its end");
    } finally {
      await this.#clear();
    }
  }

  async #attempt(): Promise<RunEnd> {
    const agent = findAgent(this.#task.agent);
    if (agent === undefined) throw new AppError("NotFound", `There is no agent ${this.#task.agent}.`);
    const { user_id, project_id } = this.#task;
    const key = `${user_id}/${project_id}`;
    this.#lease = await this.#deps.pool.acquire(key, this.stop.signal, (ahead) => this.#waiting(ahead));
    const { opencode, workspace } = await this.#prepare(this.#lease, agent);
    const translator = new UpdateTranslator([
      [opencode.serverPassword, "[hidden]"],
      [BRIDGE_URL, "[model server]"],
    ]);
    const stopReason = await this.#converse(opencode, workspace, translator);
    await this.#settle(opencode, workspace);
    const failure = finishFailure(stopReason, this.#callsOf(), this.#deps.config.run.maxOutputTokens);
    if (failure !== undefined) return { kind: "finish", state: "failed", error: failure };
    const collected = await collectChanges(workspace, this.#deps.config.quota);
    for (const note of collected.warnings) this.#writer.push({ type: "state", state: "running", note });
    this.#reusable = !collected.agentConfiguration;
    return propose(
      this.#task,
      agent,
      { collected, revision: workspace.revision, answer: translator.answer },
      this.#deps,
    );
  }

  /** The process with a session, and the files, at the same time; both have settled when this throws. */
  async #prepare(lease: Lease, agent: Agent): Promise<{ opencode: OpencodeProcess; workspace: Workspace }> {
    const { requests, area, owner } = lease.workplace;
    const opening = this.#open(lease, agent);
    const preparing = Workspace.prepare(this.#deps.database.db, { requests, area, owner }, this.#task);
    const [opened, prepared] = await Promise.allSettled([opening, preparing]);
    if (prepared.status === "fulfilled") this.#workspace = prepared.value;
    if (opened.status === "rejected") throw opened.reason;
    if (prepared.status === "rejected") throw prepared.reason;
    return { opencode: opened.value, workspace: prepared.value };
  }

  async #open(lease: Lease, agent: Agent): Promise<OpencodeProcess> {
    const opencode = await lease.ready;
    this.#opencode = opencode;
    await opencode.openSession(agent.name, this.stop.signal);
    return opencode;
  }

  /** Hand over the prompt and follow the answer. @returns opencode's word for how it ended. */
  async #converse(
    opencode: OpencodeProcess,
    workspace: Workspace,
    translator: UpdateTranslator,
  ): Promise<string> {
    const { config, taskTokens } = this.#deps;
    const { timeoutMs, silenceMs } = config.run;
    const { id: task_id, user_id, attempt, model, prompt } = this.#task;
    const ttlSeconds = Math.ceil(timeoutMs / 1000) + TOKEN_GRACE_SECONDS;
    const token = await taskTokens.issue({ task_id, user_id, attempt, ttlSeconds });
    this.stop.signal.throwIfAborted();
    await workspace.enter();
    using watchdog = new Watchdog({
      timeoutMs,
      silenceMs,
      toolRunning: () => translator.toolRunning,
      onTimeout: () => this.stop.stop("timeout"),
      onSilence: () => this.stop.stop("silence"),
    });
    using _disk = new DiskGuard({
      directory: workspace.area,
      threshold: config.queue.diskThreshold,
      allowedBytes: config.quota.projectBytes,
      onFull: () => this.stop.stop("disk"),
    });
    this.#calls = opencode.beginTask({ token, model, onActivity: () => watchdog.alive() });
    const onUpdate = (update: Record<string, unknown>) => {
      watchdog.alive();
      const event = translator.translate(update);
      if (event !== undefined) this.#writer.push(event);
    };
    this.#sent = true;
    this.#prompt = opencode.prompt({ text: prompt, timeoutMs: timeoutMs + CANCEL_MS, onUpdate });
    this.#prompt.catch(() => undefined);
    return await Promise.race([this.#prompt, this.stop.stopped]);
  }

  /** After the prompt has ended: no call, no process and no file of the run stays with the agent. */
  async #settle(opencode: OpencodeProcess, workspace: Workspace): Promise<void> {
    opencode.endTask();
    const left = await opencode.sweep();
    if (left > 0) this.#deps.log.info({ processes: left }, "ended processes that a run had left behind");
    await workspace.leave();
    this.#quiet = true;
  }

  /** Bring a run that was broken off to rest: a cancelled one gently, every other by ending its process. */
  async #quieten(): Promise<void> {
    const opencode = this.#opencode;
    if (opencode === undefined || this.#quiet) return;
    const gently = this.stop.reason === "cancelled" && this.#sent && !opencode.dead;
    if (!gently || this.#workspace === undefined) {
      opencode.endTask();
      return;
    }
    opencode.cancel();
    const settled = this.#prompt?.then(
      () => true,
      () => false,
    );
    if ((await Promise.race([settled, sleep(CANCEL_MS, false, { ref: false })])) !== true) return;
    try {
      await this.#settle(opencode, this.#workspace);
      this.#reusable = true;
    } catch (error) {
      this.#deps.log.warn({ err: error }, "a cancelled run did not come to rest");
    }
  }

  async #judge(error: unknown): Promise<RunEnd> {
    const { config, log } = this.#deps;
    const reason = this.stop.reason;
    if (reason === "lost") return { kind: "lost" };
    if (reason === "cancelled") return { kind: "finish", state: "cancelled" };
    if (reason === "shutdown")
      return { kind: "requeue", note: "The server was stopped; the task starts again." };
    if (reason === "disk") return { kind: "finish", state: "failed", error: DISK_FAILURE };
    if (reason === "timeout" || reason === "silence") {
      return { kind: "finish", state: "failed", error: timeFailure(reason, config.run, this.#calls) };
    }
    if (error instanceof AcpError || error instanceof AppError)
      log.info({ reason: error.message }, "a run failed");
    else if (!(error instanceof RunStopped)) log.error({ err: error }, "a run failed");
    if (reason === "events" || (!this.#sent && worthRetry(error))) {
      return { kind: "retry", error: startFailure(error) };
    }
    if (!this.#sent) return { kind: "finish", state: "failed", error: startFailure(error) };
    // opencode's own word, or ours after its end, says enough; otherwise it may have died under us.
    const told = this.#quiet || error instanceof AcpError;
    const exit = told ? undefined : await this.#opencode?.exitError(EXIT_MS);
    return { kind: "finish", state: "failed", error: runFailure(error, this.#calls, exit) };
  }

  async #clear(): Promise<void> {
    try {
      if (this.#reusable) await this.#workspace?.remove();
      await this.#lease?.release(this.#reusable);
    } catch (error) {
      this.#deps.log.warn({ err: error }, "a request's directory could not be removed");
      await this.#lease?.release(false);
    }
  }

  #callsOf(): BridgeRun {
    if (this.#calls === undefined) throw new Error("no model calls before the prompt");
    return this.#calls;
  }

  #waiting(ahead: number): void {
    const note =
      ahead === 0 ? "Starts next." : `Waits for ${ahead} other ${ahead === 1 ? "start" : "starts"}.`;
    const body: TaskEventBody = { type: "state", state: "running", note };
    this.#writer.push(body);
  }
}

function owned({ id, attempt }: RunningTask): { task_id: string; attempt: number } {
  return { task_id: id, attempt };
}
