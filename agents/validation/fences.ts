/** A fenced block of Markdown. */
interface Fence {
  /** What stands behind the opening fence, in small letters: a language, or what the block is for. */
  readonly label: string;
  readonly content: string;
  /** Its opening line, counted from 1. */
  readonly line: number;
  readonly closed: boolean;
}

interface Markdown {
  readonly fences: readonly Fence[];
  /** The lines outside of fences; those inside are empty. */
  readonly lines: readonly string[];
}

/** Markdown taken apart at its fences, as CommonMark has them: backticks or tildes, three or more. */
export function splitFences(text: string): Markdown {
  const fences: Fence[] = [];
  const lines: string[] = [];
  let open: { mark: string; label: string; line: number; content: string[] } | undefined;
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const [, mark = "", rest = ""] = /^ {0,3}(`{3,}|~{3,})(.*)$/.exec(line) ?? [];
    const closes = open !== undefined && mark.startsWith(open.mark) && rest.trim() === "";
    if (open === undefined && mark !== "" && !(mark.startsWith("`") && rest.includes("`"))) {
      open = { mark, label: rest.trim().toLowerCase(), line: index + 1, content: [] };
    } else if (open !== undefined && closes) {
      fences.push({ label: open.label, line: open.line, content: open.content.join("\n"), closed: true });
      open = undefined;
    } else if (open !== undefined) {
      open.content.push(line);
    } else {
      lines.push(line);
      continue;
    }
    lines.push("");
  }
  if (open !== undefined) {
    fences.push({ label: open.label, line: open.line, content: open.content.join("\n"), closed: false });
  }
  return { fences, lines };
}

/** Contents of the closed blocks of an answer that are for one purpose, in order. */
export function fencedBlocks(answer: string, label: string): string[] {
  return splitFences(answer)
    .fences.filter((fence) => fence.closed && fence.label === label)
    .map((fence) => fence.content);
}
