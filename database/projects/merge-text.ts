import { diff3MergeRegions, type IRegion } from "node-diff3";
import { cost, LineTable, type Piece, pieces, same, splitLines } from "./lines.ts";

export interface TextMerge {
  /** Whether both sides' edits stand in `text`; else it has conflict markers. */
  readonly clean: boolean;
  readonly text: string;
}

export interface MergeLabels {
  readonly ours: string;
  readonly theirs: string;
}

type Eol = "\n" | "\r\n";

/**
 * Elementary steps the comparison of one file may take, about 0.1 s: past it (thousands of equal lines,
 * all changed) the rest is a conflict, because an endless comparison would hold up every other user.
 */
const MAX_COST = 20_000_000;

/**
 * Three-way merge of texts, line by line. A missing final newline and `\r\n` are kept; a side that only
 * changed all line ends does not conflict with a side that changed words.
 */
export function mergeText(base: string, ours: string, theirs: string, labels: MergeLabels): TextMerge {
  const ends = commonLineEnds(base, ours, theirs);
  if (ends === null) return mergeLines(base, ours, theirs, labels, "\n");
  if (!ends.differ) return mergeLines(base, ours, theirs, labels, ends.result);
  const merged = mergeLines(toLf(base), toLf(ours), toLf(theirs), labels, "\n");
  return ends.result === "\n" ? merged : { ...merged, text: merged.text.replaceAll("\n", "\r\n") };
}

function toLf(text: string): string {
  return text.replaceAll("\r\n", "\n");
}

/** The one kind of line end a text uses, undefined when it has none, null when it mixes them. */
function lineEnd(text: string): Eol | undefined | null {
  let found: Eol | undefined;
  for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n", at + 1)) {
    const end: Eol = text[at - 1] === "\r" ? "\r\n" : "\n";
    if (found !== undefined && found !== end) return null;
    found = end;
  }
  return found;
}

/** What the merged text's line ends are, or null where a text mixes them (then they are compared as content). */
function commonLineEnds(base: string, ours: string, theirs: string): { differ: boolean; result: Eol } | null {
  const [o, a, b] = [lineEnd(base), lineEnd(ours), lineEnd(theirs)];
  if (o === null || a === null || b === null) return null;
  const was = o ?? a ?? b ?? "\n";
  const [left, right] = [a ?? was, b ?? was];
  return { differ: left !== was || right !== was, result: left === was ? right : left };
}

function mergeLines(base: string, ours: string, theirs: string, labels: MergeLabels, eol: Eol): TextMerge {
  const table = new LineTable();
  const whole: Piece = {
    o: table.intern(splitLines(base)),
    a: table.intern(splitLines(ours)),
    b: table.intern(splitLines(theirs)),
  };
  const output: string[] = [];
  let clean = true;
  let budget = MAX_COST;
  const conflict = (a: number[], b: number[]) => {
    clean = false;
    output.push(markers(table.text(a), table.text(b), labels, eol));
  };
  for (const piece of pieces(whole)) {
    const { o, a, b } = piece;
    if (same(a, b) || same(o, b)) output.push(table.text(a));
    else if (same(o, a)) output.push(table.text(b));
    else if (cost(o, a) + cost(o, b) > budget) conflict(a, b);
    else {
      budget -= cost(o, a) + cost(o, b);
      for (const region of diff3MergeRegions(a, o, b) as IRegion<number>[]) {
        if (region.stable) output.push(table.text(region.bufferContent));
        else if (same(region.aContent, region.bContent)) output.push(table.text(region.aContent));
        else conflict(region.aContent, region.bContent);
      }
    }
  }
  return { clean, text: output.join("") };
}

function markers(ours: string, theirs: string, labels: MergeLabels, eol: Eol): string {
  const ended = (text: string) => (text === "" || text.endsWith("\n") ? text : text + eol);
  return `<<<<<<< ${labels.ours}${eol}${ended(ours)}=======${eol}${ended(theirs)}>>>>>>> ${labels.theirs}${eol}`;
}
