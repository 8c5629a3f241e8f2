/** How a command of a check ended. */
export interface CheckRun {
  /** Null when a limit ended it. */
  readonly code: number | null;
  /** What it wrote on both streams, bounded: the beginning and the end. */
  readonly output: string;
  readonly timedOut: boolean;
}

/** A project's files at one moment, to look at and to try out. */
export interface Tree {
  /** Paths of its files, relative to the project. */
  list(): Promise<readonly string[]>;
  /** Null: there is no such file, or it is too large to be looked at. */
  read(path: string): Promise<Uint8Array | null>;
  /**
   * A shell's command (`sh -c`) in a copy of the tree, in a sandbox without network. What it writes is no part of
   * the result, but later commands on the same tree see it.
   */
  run(command: string, options?: { readonly timeoutMs?: number }): Promise<CheckRun>;
}

/** What a validator may ask for: the project as the agent got it, and what it made of it. */
export interface Checks {
  readonly before: Tree;
  readonly after: Tree;
  /** The project as the agent got it, but for these paths, which are as in `after` (deleted, where not there). */
  overlay(paths: readonly string[]): Tree;
}
