import type { CheckReport, Finding } from "#schemas";
import type { Checks } from "./checks.ts";

/** The programs that can drive an agent; the first one is the default. */
export const RUNNERS = ["native", "opencode"] as const;
export type Runner = (typeof RUNNERS)[number];

/** One file of a proposed change as the agent left it; null = the file is not there. */
export interface ProposedFile {
  readonly path: string;
  readonly before: Uint8Array | null;
  readonly after: Uint8Array | null;
}

/** What a run came to: the files it changed and the last thing it said. */
export interface ProposedChange {
  readonly files: readonly ProposedFile[];
  readonly answer: string;
}

/** How an agent is set up inside a runner; names of tools and permissions are opencode's own. */
export interface AgentSetup {
  /** The system prompt. */
  readonly prompt: string;
  /** 0..2; left to the model when absent. */
  readonly temperature?: number;
  /**
   * What the agent may do without asking. There is nobody to ask during a run: never "ask". A runner does not
   * offer the tools of what is denied.
   */
  readonly permission: Readonly<Record<string, "allow" | "deny">>;
}

/** What an agent is told besides its prompt, and how much of it. */
export interface ContextPolicy {
  /** Size of the whole conversation at which older turns are compacted, tokens. */
  readonly maxTokens: number;
  /** Share of the session's former tasks, put before the prompt, tokens. */
  readonly historyTokens: number;
  /** Whether it is shown the file the user looks at, and what is selected there. */
  readonly editor: boolean;
}

/** How a result was judged. */
export interface Verdict {
  /** What is wrong with it, one sentence each, safe to show; empty = it may be proposed for review. */
  readonly problems: string[];
  /** What was really run to judge it. */
  readonly checks: CheckReport[];
  /** What an audit found. */
  readonly findings?: Finding[];
}

/** An agent: a name people dispatch to, its character, and what counts as a result of it. No IO. */
export interface Agent {
  readonly name: string;
  readonly description: string;
  /** The first one is the default. */
  readonly runners: readonly [Runner, ...Runner[]];
  readonly setup: AgentSetup;
  readonly context: ContextPolicy;
  /** How many times it may mend a refused result, told what is wrong with it. */
  readonly repairRounds: number;
  /** Never throws for what an agent did; throws what `checks` throws. */
  validate(result: ProposedChange, checks: Checks): Promise<Verdict>;
}
