import type { Finding } from "#schemas";

/** A file to look through. */
export interface ScannedFile {
  readonly path: string;
  readonly text: string;
  /** Every path of the project. */
  readonly paths: ReadonlySet<string>;
}

/** Deterministic rules for one kind of file; pure. */
export interface Scanner {
  wants(path: string): boolean;
  scan(file: ScannedFile): Finding[];
}

/** What stands for a finding but its place. */
export type Issue = Pick<Finding, "severity" | "cwe" | "title" | "detail"> & { readonly fix: string };

/** Longer lines are data: what they hold is nobody's manifest, and reading them takes more than it finds. */
const MAX_LINE_CHARS = 5000;
/** Longest piece of a file repeated in a finding. */
const QUOTE_CHARS = 80;

export function fileName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** A path beside another one. */
export function beside(path: string, name: string): string {
  return path.slice(0, path.lastIndexOf("/") + 1) + name;
}

export function shortened(text: string): string {
  const plain = text.replace(/\s+/g, " ").trim();
  return plain.length > QUOTE_CHARS ? `${plain.slice(0, QUOTE_CHARS - 1)}…` : plain;
}

/** The line of a place in a text, counted from 1. */
export function lineAt(text: string, index: number): number {
  let line = 1;
  for (let at = text.indexOf("\n"); at !== -1 && at < index; at = text.indexOf("\n", at + 1)) line += 1;
  return line;
}

/** Findings by rules that look at one line at a time. */
export function byLine(
  { path, text }: ScannedFile,
  issueOf: (line: string, index: number) => Issue | undefined,
): Finding[] {
  return text.split(/\r?\n/).flatMap((line, index) => {
    const issue = line.length > MAX_LINE_CHARS ? undefined : issueOf(line, index);
    return issue === undefined ? [] : [{ file: path, line: index + 1, ...issue }];
  });
}
