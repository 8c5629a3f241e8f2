import { splitFences } from "../validation/fences.ts";

export interface Link {
  /** As it stands there, without a title. */
  readonly target: string;
  /** Counted from 1. */
  readonly line: number;
}

/** What of a Markdown page can be checked against the project. */
export interface Page {
  readonly links: readonly Link[];
  /** What a link can lead to behind `#`. */
  readonly anchors: ReadonlySet<string>;
  /** Lines of the first-level headings. */
  readonly titles: readonly number[];
  /** Line of a fence that is not closed. */
  readonly openFence: number | undefined;
  /** Names after `npm run` and the like, anywhere in the text. */
  readonly scripts: readonly string[];
}

const INLINE =
  /(?<!\\)!?\[(?:[^[\]\\]|\\.|\[[^[\]]*\])*\]\(\s*(<[^<>]*>|[^\s()]*(?:\([^\s()]*\)[^\s()]*)*)(?:\s{1,9}["'(][^)]{0,300})?\)/g;
const REFERENCE = /^ {0,3}\[[^[\]^]+\]:\s*(<[^<>]*>|\S+)/;
const ATTRIBUTE = /<(?:a|img)\b[^<>]*?\s(?:href|src)=["']([^"'<>]*)["']/gi;
const ANCHOR = /<[a-z]+\d?\b[^<>]*?\s(?:id|name)=["']([^"'<>]+)["']/gi;
const NPM = /\b(?:npm|pnpm|yarn|bun)\s+(?:(?:run|run-script)\s+([\w:.-]+)|(test|start)\b)/g;
/** Longer lines are data: looking for links in them costs more than it finds. */
const MAX_LINE_CHARS = 5000;

export function readPage(text: string): Page {
  const { fences, lines: all } = splitFences(text.replace(/^\ufeff/, ""));
  const lines = all.map((line) => (line.length > MAX_LINE_CHARS ? "" : line));
  const links: Link[] = [];
  const anchors = new Set<string>();
  const slugs = new Map<string, number>();
  const titles: number[] = [];
  for (const [index, line] of lines.entries()) {
    const prose = withoutCode(line);
    links.push(...linksIn(prose).map((target) => ({ target, line: index + 1 })));
    for (const [, id = ""] of prose.matchAll(ANCHOR)) anchors.add(id);
    const heading = headingAt(lines, index);
    if (heading === undefined) continue;
    if (heading.level === 1) titles.push(index + 1);
    const slug = slugOf(heading.text);
    const times = slugs.get(slug) ?? 0;
    slugs.set(slug, times + 1);
    anchors.add(times === 0 ? slug : `${slug}-${times}`);
    const [, own] = /\{#([\w-]+)\}\s*$/.exec(heading.text) ?? [];
    if (own !== undefined) anchors.add(own);
  }
  const openFence = fences.find((fence) => !fence.closed)?.line;
  return { links, anchors, titles, openFence, scripts: scriptsIn(text) };
}

function linksIn(prose: string): string[] {
  const [, reference] = REFERENCE.exec(prose) ?? [];
  const found = [...prose.matchAll(INLINE), ...prose.matchAll(ATTRIBUTE)].map(([, target = ""]) => target);
  return [...found, ...(reference === undefined ? [] : [reference])].map((target) =>
    target.replace(/^<|>$/g, ""),
  );
}

/** `## Title`, or a line that is underlined with `=` or `-`. */
function headingAt(lines: readonly string[], index: number): { level: number; text: string } | undefined {
  const line = lines[index] ?? "";
  const [, marks, text = ""] = /^ {0,3}(#{1,6})(?:[ \t]+(.*))?$/.exec(line) ?? [];
  if (marks !== undefined) return { level: marks.length, text: text.replace(/[ \t]#+[ \t]*$/, "") };
  const [, under = ""] = /^ {0,3}(=+|-{2,})\s*$/.exec(lines[index + 1] ?? "") ?? [];
  // Above a rule, a table or a list's item there is no heading.
  if (under === "" || line.trim() === "" || /^\s*([-*+>|#]|\d+\.)\s?|^---/.test(line)) return undefined;
  return { level: under.startsWith("=") ? 1 : 2, text: line };
}

/** As code hosts make anchors of headings: letters, digits, `-` and `_` stay, spaces become `-`. */
function slugOf(heading: string): string {
  const plain = heading
    .replace(/!?\[([^\]]*)\]\([^)]*\)/g, "$1")
    .replace(/<[^<>]*>/g, "")
    .replace(/\{#[\w-]+\}\s*$/, "");
  return plain
    .trim()
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\p{M}\s_-]/gu, "")
    .replace(/\s/g, "-");
}

/** Spans of code are no links; what they hold is blanked. */
function withoutCode(line: string): string {
  return line.replace(/(`+)(?!`)(.*?[^`])\1(?!`)/g, (span) => " ".repeat(span.length));
}

function scriptsIn(text: string): string[] {
  const names = [...text.matchAll(NPM)].map(([, named, short]) =>
    (named ?? short ?? "").replace(/[.:]+$/, ""),
  );
  return [...new Set(names.filter((name) => name !== ""))];
}
