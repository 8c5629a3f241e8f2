/** What became of something that was to be removed: "busy" when it is used again, "gone" when another was faster. */
export type RemoveOutcome = "removed" | "busy" | "gone";

/** Something that could be cleaned up. */
export interface Candidate {
  /** Unique in its source. */
  readonly id: string;
  /** Where it takes disk space; without it the disk rule passes it over. */
  readonly path?: string;
  readonly bytes?: number;
  /** When it was used last, ms since 1970; null when its owner is no more: it goes at once, whatever its age. */
  readonly idleSince: number | null;
  /** Must make sure once more that nobody uses it. */
  remove(): Promise<RemoveOutcome>;
}

/** One kind of things that are left over. */
export interface CleanSource {
  /** For metrics and logs: one of a fixed set. */
  readonly name: string;
  /** What it lists is worth nothing once this process ends: a shutdown takes all of it, however young. */
  readonly temporary?: boolean;
  /** What nobody uses now. */
  list(): Promise<Candidate[]>;
}

/** Why something was removed. */
export type RemoveReason = "orphan" | "age" | "disk" | "shutdown";
