import type { CheckReport } from "#schemas";
import type { Verdict } from "../agent.ts";
import type { Checks, Tree } from "../checks.ts";
import { PARSERS, type Parser } from "./parsers.ts";
import { howItEnded, missing, succeeded, verdict } from "./verdict.ts";

/** More changed files than this are no change that a person reviews file by file. */
const MAX_FILES = 400;
/** A command is one argument of a process: 128 KiB at most (MAX_ARG_STRLEN of execve(2)), program and quotes included. */
const MAX_PATH_CHARS = 48_000;
const MAX_HEAD_BYTES = 256;

interface Failure {
  readonly path: string;
  readonly message: string;
}

/**
 * Whether the changed files parse. What did not parse before either is not held against a change: it may be a
 * template, or for a tool that reads more than the language.
 */
export async function checkSyntax(checks: Checks, changedPaths: readonly string[]): Promise<Verdict> {
  const there = new Set(await checks.after.list());
  const paths = changedPaths.filter((path) => there.has(path)).slice(0, MAX_FILES);
  const heads = await headsOf(checks.after, paths);
  const problems: string[] = [];
  const reports: CheckReport[] = [];
  for (const parser of PARSERS) {
    const wanted = paths.filter((path) => parser.wants(path, heads.get(path) ?? ""));
    if (wanted.length === 0) continue;
    const outcome = await parsed(checks, parser, wanted);
    problems.push(...outcome.problems);
    reports.push(outcome.report);
  }
  return verdict(problems, reports);
}

async function parsed(
  checks: Checks,
  parser: Parser,
  paths: readonly string[],
): Promise<{ problems: string[]; report: CheckReport }> {
  const name = `syntax: ${parser.name}`;
  const files = paths.length === 1 ? "1 file" : `${paths.length} files`;
  const found = await failuresIn(checks.after, parser, paths);
  if (typeof found === "string") {
    // Without the language's own program nothing is known; with it, what could not be parsed is not taken for good.
    const problems = found === "" ? [] : [`The syntax of ${files} could not be checked: it ${found}`];
    const output = found === "" ? "Not checked: the language is not installed here." : found;
    return { problems, report: { name, passed: false, output } };
  }
  const old = new Set(await checks.before.list());
  const suspects = found.map(({ path }) => path).filter((path) => old.has(path));
  const former = suspects.length === 0 ? [] : await failuresIn(checks.before, parser, suspects);
  const known = new Set(typeof former === "string" ? [] : former.map(({ path }) => path));
  const problems = found
    .filter(({ path }) => !known.has(path))
    .map(({ path, message }) => `${path}: does not parse: ${message}`);
  const output = problems.length === 0 ? `${files} parsed.` : problems.join("\n");
  return { problems, report: { name, passed: problems.length === 0, output } };
}

/** What does not parse; the empty string when there is no program to parse it with; else how that ended. */
async function failuresIn(
  tree: Tree,
  parser: Parser,
  paths: readonly string[],
): Promise<readonly Failure[] | string> {
  const failures: Failure[] = [];
  for (const some of portions(paths)) {
    const run = await tree.run(parser.command(some));
    if (missing(run)) return "";
    if (!succeeded(run)) return howItEnded(run);
    for (const [, index, message = ""] of run.output.matchAll(/^(\d+)\t(.*)$/gm)) {
      const path = some[Number(index)];
      if (path !== undefined) failures.push({ path, message });
    }
  }
  return failures;
}

function* portions(paths: readonly string[]): Generator<string[]> {
  let portion: string[] = [];
  let chars = 0;
  for (const path of paths) {
    if (chars + path.length > MAX_PATH_CHARS && portion.length > 0) {
      yield portion;
      portion = [];
      chars = 0;
    }
    portion.push(path);
    chars += path.length;
  }
  if (portion.length > 0) yield portion;
}

/** First lines of files whose names have no ending: they may say what runs them. */
async function headsOf(tree: Tree, paths: readonly string[]): Promise<Map<string, string>> {
  const heads = new Map<string, string>();
  for (const path of paths.filter((each) => !/\.[^/]*$/.test(each))) {
    const content = await tree.read(path);
    if (content === null) continue;
    const head = new TextDecoder().decode(content.subarray(0, MAX_HEAD_BYTES));
    heads.set(path, head.split("\n", 1)[0] ?? "");
  }
  return heads;
}
