import { setTimeout as sleep } from "node:timers/promises";
import { type Agent, type ParsedPlan, parsePlan, type Verdict } from "#agents";
import { orAborted } from "#platform/waiting.ts";
import type { Slot } from "#sandbox";
import type { TaskEventBody } from "#schemas";
import { collectChanges } from "#workspaces/collect.ts";
import type { Workspace } from "#workspaces/workspace.ts";
import type { Session, TurnEnd } from "../runners/runner.ts";
import { changeOf, judge, type Result, storeResult } from "./result.ts";
import type { RunDeps, RunEnd, RunningTask } from "./run-deps.ts";
import type { RunStop } from "./run-stop.ts";

/** Of the reasons a result was refused with, shown and fed back. */
const MAX_PROBLEMS = 20;
const MAX_PROBLEM_CHARS = 2000;
/** Of what a failed check said, fed back to the agent. */
const MAX_CHECK_CHARS = 4000;
/** A trial that was broken off has ended its commands and removed its files by then. */
const JUDGE_END_MS = 10_000;
const NOTHING_TO_JUDGE: Verdict = { problems: [], checks: [] };
const NO_PLAN: ParsedPlan = { steps: [], problems: [] };

export interface RoundsInput {
  readonly task: RunningTask;
  readonly agent: Agent;
  readonly session: Session;
  readonly workspace: Workspace;
  /** Where results are tried out. */
  readonly slot: Slot;
  readonly stop: RunStop;
  readonly deps: RunDeps;
  /** Longest turn, ms; the run's own clock strikes before it. */
  readonly timeoutMs: number;
  push(event: TaskEventBody): void;
  /** A result is being tried out, which says nothing meanwhile. */
  busy(busy: boolean): void;
}

/** The turns of a run: the prompt, then, while the result is refused, what has to be mended. */
export class Rounds {
  readonly #input: RoundsInput;
  #turn: Promise<TurnEnd> | undefined;
  #asked = false;
  #quiet = true;
  #reusable = false;

  constructor(input: RoundsInput) {
    this.#input = input;
  }

  /** The agent has had its prompt: what fails from here on is not tried again. */
  get asked(): boolean {
    return this.#asked;
  }

  /** Nothing of the run is at work, and its files are back. */
  get quiet(): boolean {
    return this.#asked && this.#quiet;
  }

  /** Where it ran can be used by the same user's next run in the project. */
  get reusable(): boolean {
    return this.#reusable;
  }

  /** Ask, take what came of it, judge it; again until it is good, or enough. @throws what broke a turn off. */
  async run(prompt: string): Promise<RunEnd> {
    const { agent, session, workspace, deps, push } = this.#input;
    let text = prompt;
    for (let round = 1; ; round += 1) {
      const { answer, failure } = await this.#ask(text);
      await this.settle();
      if (failure !== undefined) return this.#end({ kind: "finish", state: "failed", error: failure });
      const collected = await collectChanges(workspace, deps.config.quota);
      for (const note of collected.warnings) push({ type: "state", state: "running", note });
      this.#reusable = !collected.agentConfiguration;
      const result = await storeResult(collected.files, answer, deps);
      const plan = this.#planIn(answer);
      // One that left all of the work to others has no result of its own.
      const handsOn = result.files.length === 0 && plan.steps.length > 0;
      const verdict = handsOn ? NOTHING_TO_JUDGE : await this.#judge(result);
      const problems = [...verdict.problems, ...plan.problems]
        .slice(0, MAX_PROBLEMS)
        .map((problem) => problem.slice(0, MAX_PROBLEM_CHARS));
      push({ type: "validation", round, passed: problems.length === 0, problems, checks: verdict.checks });
      if (problems.length === 0) return this.#end(this.#accepted(result, verdict, plan));
      if (round > agent.repairRounds || session.dead) return this.#end(refused(problems, round));
      this.#reusable = false;
      text = repairPrompt(problems, verdict);
    }
  }

  /** When the turn under way has ended, however. */
  async turnEnded(): Promise<void> {
    await this.#turn?.catch(() => undefined);
  }

  /** After a turn: no process of it stays, and its files come back. */
  async settle(): Promise<void> {
    const { session, workspace, deps } = this.#input;
    const left = await session.sweep();
    if (left > 0) deps.log.info({ processes: left }, "ended processes that a turn had left behind");
    await workspace.leave();
    this.#quiet = true;
    this.#reusable = true;
  }

  async #ask(text: string): Promise<TurnEnd> {
    const { session, workspace, stop, timeoutMs } = this.#input;
    stop.signal.throwIfAborted();
    await workspace.enter();
    this.#quiet = false;
    this.#reusable = false;
    this.#asked = true;
    this.#turn = session.turn(text, timeoutMs);
    return await orAborted(this.#turn, stop.signal);
  }

  async #judge(result: Result): Promise<Verdict> {
    const { agent, workspace, slot, stop, deps, busy } = this.#input;
    busy(true);
    const judging = judge(agent, workspace, result, { host: deps.host, slot, signal: stop.signal }, deps);
    try {
      return await orAborted(judging, stop.signal);
    } finally {
      // What is still being made or ended in the slot must not go on when the slot is somebody else's.
      const over = Promise.allSettled([judging]);
      await Promise.race([over, sleep(JUDGE_END_MS, undefined, { ref: false })]);
      busy(false);
    }
  }

  /** The plan of an agent that may make one. */
  #planIn(answer: string): ParsedPlan {
    return this.#input.task.may_plan ? parsePlan(answer) : NO_PLAN;
  }

  #accepted(result: Result, { findings }: Verdict, { steps }: ParsedPlan): RunEnd {
    const { task, agent, workspace, push } = this.#input;
    if (findings !== undefined) push({ type: "findings", findings });
    const change = changeOf(task, agent, result, workspace.revision);
    return {
      kind: "finish",
      state: "completed",
      ...(change === null ? {} : { change }),
      ...(steps.length === 0 ? {} : { plan: steps }),
    };
  }

  #end(end: RunEnd): RunEnd {
    this.#input.session.end();
    return end;
  }
}

function refused(problems: readonly string[], rounds: number): RunEnd {
  const tried = rounds === 1 ? "" : `, after ${rounds} rounds`;
  const error = {
    code: "ResultInvalid",
    message: `The result was refused${tried}: ${problems.join(" ")}`,
    hint: "Dispatch the task again and say what to avoid, or go on from it and say what is wrong.",
  };
  return { kind: "finish", state: "failed", error };
}

/** What the agent is told of a refused result. What commands wrote is material, as everything from the project is. */
function repairPrompt(problems: readonly string[], { checks }: Verdict): string {
  const failed = checks.filter(({ passed }) => !passed);
  const outputs = failed.map(
    ({ name, command, output }) =>
      `${name}${command === undefined ? "" : ` (${command})`} wrote:\n${output.slice(-MAX_CHECK_CHARS)}`,
  );
  return [
    "Your result was checked and cannot be accepted yet:",
    ...problems.map((problem) => `- ${problem}`),
    ...outputs,
    "Mend this in the working directory, keep everything else, and finish with your message as before.",
  ].join("\n\n");
}
