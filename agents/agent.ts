/** The programs that can drive an agent. */
export type Runner = "opencode";

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
  /** What the agent may do without asking. There is nobody to ask during a run: never "ask". */
  readonly permission: Readonly<Record<string, "allow" | "deny">>;
}

/** An agent: a name people dispatch to, its character, and what counts as a result of it. No IO. */
export interface Agent {
  readonly name: string;
  readonly description: string;
  /** The first one is the default. */
  readonly runners: readonly [Runner, ...Runner[]];
  readonly setup: AgentSetup;
  /** What is wrong with a result, one sentence each, safe to show; empty = it may be proposed for review. */
  validate(change: ProposedChange): string[];
}
