import type { Db } from "../schema.ts";
import { batches, readBlobs } from "./blobs.ts";
import { type MergeLabels, mergeText } from "./merge-text.ts";
import type { Placed } from "./placing.ts";
import { decodeText, isText } from "./text.ts";
import { decide, type Sides } from "./three-way.ts";
import type { Conflict, ConflictKind, Delta } from "./types.ts";

/** Both sides between markers are shown up to this many characters; a larger one is better seen as a diff. */
const MAX_SHOWN_MERGE = 256 * 1024;
/** Contents in memory at once while merging. */
const MERGE_BATCH_BYTES = 32 * 1024 * 1024;

/** A text both sides changed and that could be merged. */
export interface MergedText {
  readonly path: string;
  readonly content: Buffer;
  readonly executable: boolean;
}

export interface Merge {
  /** What to apply as it is. */
  readonly deltas: Delta[];
  /** What to store and apply. */
  readonly merged: MergedText[];
  readonly conflicts: Conflict[];
}

/** A path to merge, and what is known of moves that lead to it. */
type Mergeable = Sides & Partial<Pick<Placed, "forced" | "moved_from">>;

/** A path whose contents have to be looked at. */
interface Pending extends Mergeable {
  readonly conflict: "content" | "add_add" | "move_move";
  readonly executable: boolean;
  /** Bytes of all three contents. */
  readonly size: number;
}

/** Three-way merge of many paths, reading only the contents that both sides changed. Changes nothing. */
export async function mergePaths(db: Db, paths: readonly Mergeable[], labels: MergeLabels): Promise<Merge> {
  const merge: Merge = { deltas: [], merged: [], conflicts: [] };
  const pending: Pending[] = [];
  for (const sides of paths) {
    if (sides.forced === "move_move") pending.push(toPending(sides, "move_move", false));
    else if (sides.forced !== undefined) merge.conflicts.push(conflictAt(sides, sides.forced));
    if (sides.forced !== undefined) continue;
    const decision = decide(sides);
    if (decision.kind === "take") merge.deltas.push({ path: sides.path, to: decision.to });
    if (decision.kind === "merge") pending.push(toPending(sides, "content", decision.executable));
    if (decision.kind !== "conflict") continue;
    if (decision.conflict === "add_add") pending.push(toPending(sides, "add_add", false));
    else merge.conflicts.push(conflictAt(sides, decision.conflict));
  }
  for (const batch of batches(pending, MERGE_BATCH_BYTES)) await mergeContents(db, batch, labels, merge);
  merge.conflicts.sort((left, right) => (left.path < right.path ? -1 : 1));
  return merge;
}

function conflictAt({ path, moved_from }: Mergeable, kind: ConflictKind, merged?: string): Conflict {
  return {
    path,
    kind,
    ...(merged === undefined || merged.length > MAX_SHOWN_MERGE ? {} : { merged }),
    ...(moved_from === undefined ? {} : { moved_from }),
  };
}

function toPending(sides: Mergeable, conflict: Pending["conflict"], executable: boolean): Pending {
  const size = [sides.base, sides.current, sides.proposed].reduce((sum, side) => sum + (side?.size ?? 0), 0);
  return { ...sides, conflict, executable, size };
}

async function mergeContents(
  db: Db,
  batch: readonly Pending[],
  labels: MergeLabels,
  merge: Merge,
): Promise<void> {
  const versions = batch.flatMap(({ base, current, proposed }) => [base, current, proposed]);
  const contents = await readBlobs(
    db,
    versions.flatMap((side) => (side === null ? [] : [side.blob_hash])),
  );
  for (const sides of batch) {
    const { path, base, current, proposed, conflict, executable } = sides;
    const [o, a, b] = [base, current, proposed].map((side) =>
      side === null ? Buffer.alloc(0) : contents.get(side.blob_hash.toString("hex")),
    );
    if (o === undefined || a === undefined || b === undefined) {
      throw new Error(`a content of ${path} is missing in the store`);
    }
    if (![o, a, b].every(isText)) {
      merge.conflicts.push(conflictAt(sides, conflict === "move_move" ? conflict : "binary"));
      continue;
    }
    const { clean, text } = mergeText(decodeText(o), decodeText(a), decodeText(b), labels);
    if (clean && conflict === "content") merge.merged.push({ path, content: Buffer.from(text), executable });
    else merge.conflicts.push(conflictAt(sides, conflict, text));
  }
}
