import type { Agent } from "#agents";
import type { Slot } from "#sandbox";
import type { TaskError, TaskEventBody } from "#schemas";
import type { WorkspacePlace } from "#workspaces/workspace.ts";
import type { RunningTask } from "../run/run-deps.ts";

/** What a session does its turns for. */
export interface SessionTask {
  /** Speaks for this task at the model server; never seen inside the sandbox. */
  readonly token: string;
  readonly model: string;
  /** Hosts that the agent's programs may reach: none unless granted. */
  readonly network: readonly string[];
  /** The model was asked or said something, or a tool did. */
  onActivity(): void;
  onEvent(event: TaskEventBody): void;
  /** Passed before every model call: waits while the task is paused. Throws what it was ended with. */
  gate(): Promise<void>;
}

/** How a turn ended that nothing broke off. */
export interface TurnEnd {
  /** The agent's last message. */
  readonly answer: string;
  /** Why it is no success all the same: the model's failure, an answer cut off, too many steps. */
  readonly failure?: TaskError;
}

/**
 * An agent at work on one task, whatever drives it: prompts one after the other, each with all that was said before.
 * Every runner has the same tools by the same names, and tells of its work by the same events.
 */
export interface Session {
  /** Whether a tool is at work, so that the model's silence is none. */
  readonly toolRunning: boolean;
  /** Whether a model has been asked and has not finished its answer. */
  readonly modelAsked: boolean;
  /** Nothing more can be asked of it. */
  readonly dead: boolean;
  /** Let it call models for this task until `end`. */
  begin(task: SessionTask): void;
  /**
   * One prompt to its end, `timeoutMs` at most. Throws AppError, or a runner's own error that `explain` can tell, when
   * it broke off; after `cancel` it ends soon, either way.
   */
  turn(prompt: string, timeoutMs: number): Promise<TurnEnd>;
  /** Ask the running turn to stop. */
  cancel(): void;
  /** Whoever stores its events is behind (true), or no longer. */
  pauseOutput(pause: boolean): void;
  /** Between turns: end what processes the last one left behind. Answers how many those were. */
  sweep(): Promise<number>;
  /** No model call and no event of this task counts any more. */
  end(): void;
  /** What went wrong in a turn, for the task's owner. `known`: the error says enough, nothing is asked of the process. */
  explain(error: unknown, known: boolean): Promise<TaskError>;
}

/** A slot with the directories one run needs. Given back with `release`. */
export interface Station {
  readonly slot: Slot;
  readonly place: WorkspacePlace;
  /** Make an agent ready to work there; its files may come at the same time. Throws AppError. */
  open(agent: Agent, signal: AbortSignal): Promise<Session>;
  /** Announce that it comes back in a moment: its user's next task then waits for it. */
  leaving(): void;
  /** Give it back; `reusable`: nothing of the run is left in it that the same user's next could not see. */
  release(reusable: boolean): Promise<void>;
}

/** A way to drive agents. */
export interface Runner {
  /** @throws AppError of the sandbox; what `signal` was aborted with. `onWait` hears how many starts are before. */
  acquire(task: RunningTask, signal: AbortSignal, onWait: (ahead: number) => void): Promise<Station>;
  /** End everything. */
  close(): Promise<void>;
}
