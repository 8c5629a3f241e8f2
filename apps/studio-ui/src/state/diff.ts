import { structuredPatch } from "diff";

interface DiffLine {
  kind: "same" | "added" | "removed";
  text: string;
  before: number | undefined;
  after: number | undefined;
}

export interface Hunk {
  /** Unchanged lines left out before this hunk. */
  skipped: number;
  lines: DiffLine[];
}

/** Above this many characters a side is shown without looking for its differences. */
const MAX_DIFF_CHARS = 500_000;

/** The hunks between two texts with three lines of context; one side may be missing. */
export function diffHunks(before: string | null, after: string | null): Hunk[] {
  if ((before?.length ?? 0) + (after?.length ?? 0) > MAX_DIFF_CHARS) return [];
  const patch = structuredPatch("a", "b", before ?? "", after ?? "", "", "", { context: 3 });
  let reached = 0;
  return patch.hunks.map((hunk) => {
    const start = Math.max(hunk.newStart - 1, 0);
    const skipped = Math.max(start - reached, 0);
    reached = start + hunk.newLines;
    return { skipped, lines: linesOf(hunk) };
  });
}

function linesOf(hunk: { oldStart: number; newStart: number; lines: string[] }): DiffLine[] {
  let before = hunk.oldStart;
  let after = hunk.newStart;
  const lines: DiffLine[] = [];
  for (const line of hunk.lines) {
    const text = line.slice(1);
    if (line.startsWith("\\")) continue;
    if (line.startsWith("+")) lines.push({ kind: "added", text, before: undefined, after: after++ });
    else if (line.startsWith("-")) lines.push({ kind: "removed", text, before: before++, after: undefined });
    else lines.push({ kind: "same", text, before: before++, after: after++ });
  }
  return lines;
}
