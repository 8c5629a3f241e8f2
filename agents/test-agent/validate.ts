import type { ProposedChange, Verdict } from "../agent.ts";
import type { CheckRun, Checks } from "../checks.ts";
import { type ProjectCommand, testCommand, testsAlone } from "../validation/commands.ts";
import { fileProblems, textOf } from "../validation/files.ts";
import { quoted, quotedPath } from "../validation/shell.ts";
import { checkSyntax } from "../validation/syntax.ts";
import { holdsTests } from "../validation/test-files.ts";
import { type TestCounts, testCounts } from "../validation/test-output.ts";
import { howItEnded, joined, reportOf, succeeded, verdict } from "../validation/verdict.ts";
import { weakenedTests } from "./weakened.ts";

/** Broken one after the other to see whether the tests notice: each costs a run of all tests. */
const MAX_BROKEN = 3;
/** Parses in no language. */
const NONSENSE = "\n)]}'\"(\n";

/** Tests were written, they say no less than before, and they really run and pass together with those that were there. */
export async function validateTests(change: ProposedChange, checks: Checks): Promise<Verdict> {
  const written = change.files.flatMap(({ path, after }) => {
    const text = textOf(after);
    return text !== undefined && holdsTests(path, text) ? [path] : [];
  });
  const problems = [...fileProblems(change), ...weakenedTests(change.files)];
  if (written.length === 0) problems.push("No test was written or changed: TestAgent's result is tests.");
  if (problems.length > 0) return verdict(problems);
  const paths = change.files.map((file) => file.path);
  const syntax = await checkSyntax(checks, paths);
  if (syntax.problems.length > 0) return syntax;
  return joined(syntax, await runTests(checks, written));
}

async function runTests(checks: Checks, written: readonly string[]): Promise<Verdict> {
  // A script that came with the change could say anything: what was there before decides, else the files themselves.
  const own = await testCommand(checks.before);
  const alone = testsAlone(written);
  if (own === undefined) {
    return alone === undefined
      ? verdict([untestable(written)])
      : await judged(checks, alone, written, undefined);
  }
  const before = await checks.before.run(own.command);
  const first = await judged(checks, own, written, before);
  // Red before, as for want of packages: the new tests may still show by themselves that they pass.
  if (first.problems.length === 0 || succeeded(before) || alone === undefined) return first;
  const second = await judged(checks, alone, written, undefined);
  return second.problems.length === 0 ? joined(verdict([], first.checks), second) : first;
}

async function judged(
  checks: Checks,
  { name, command, shown }: ProjectCommand,
  written: readonly string[],
  before: CheckRun | undefined,
): Promise<Verdict> {
  const after = await checks.after.run(command);
  const report = reportOf(name, shown, after, before === undefined ? {} : { before: succeeded(before) });
  if (!succeeded(after)) return verdict([`The tests fail: \`${shown}\` ${howItEnded(after)}`], [report]);
  const now = testCounts(after.output);
  if (now?.ran === 0) return verdict([`No test ran: \`${shown}\` ${howItEnded(after)}`], [report]);
  const then = before === undefined ? undefined : testCounts(before.output);
  if (now !== undefined && then !== undefined && now.ran < then.ran) {
    return verdict(
      [`Fewer tests run than before: ${now.ran} instead of ${then.ran} by \`${shown}\`.`],
      [report],
    );
  }
  if (grew(then, now, before)) return verdict([], [report]);
  const unnoticed = await unnoticedIn(checks, command, written);
  const problems = unnoticed.map(
    (path) => `${path}: is not run by \`${shown}\`: it passes with nonsense in it too.`,
  );
  return verdict(problems, [report]);
}

/** Whether there are more tests than before, so that the new ones must be among those that ran. */
function grew(
  then: TestCounts | undefined,
  now: TestCounts | undefined,
  before: CheckRun | undefined,
): boolean {
  return now !== undefined && (before === undefined || (then !== undefined && now.ran > then.ran));
}

/** Which of these files the command passes over: it still succeeds when they cannot be parsed. */
async function unnoticedIn(checks: Checks, command: string, paths: readonly string[]): Promise<string[]> {
  const unnoticed: string[] = [];
  for (const path of paths.slice(0, MAX_BROKEN)) {
    const file = quotedPath(path);
    const script = [
      "kept=$(mktemp) || exit 125",
      `cp -- ${file} "$kept" && printf '%s' ${quoted(NONSENSE)} >> ${file} || exit 125`,
      `sh -c ${quoted(command)}`,
      "code=$?",
      `cp -- "$kept" ${file}; rm -f -- "$kept"`,
      "exit $code",
    ].join("\n");
    if (succeeded(await checks.after.run(script))) unnoticed.push(path);
  }
  return unnoticed;
}

function untestable(written: readonly string[]): string {
  return `The project has no test command, and nothing here can run ${written.slice(0, 3).join(", ")} by itself.`;
}
