import type { CheckReport } from "#schemas";
import type { Verdict } from "../agent.ts";
import type { Checks } from "../checks.ts";
import { type ProjectCommand, testCommand, typeCommand } from "./commands.ts";
import { checkSyntax } from "./syntax.ts";
import { howItEnded, joined, reportOf, succeeded, verdict } from "./verdict.ts";

/**
 * Whether a project is as whole as it was: its changed files parse, its own tests and its own type check do not fail
 * where they passed before. What fails on `before` too, as for want of packages that cannot be installed, is told in
 * the reports and not held against the change. Fit for an agent's result and for a merged tree before it becomes a
 * revision: pieces that pass each by themselves are run together.
 */
export async function checkProject(checks: Checks, changedPaths: readonly string[]): Promise<Verdict> {
  const syntax = await checkSyntax(checks, changedPaths);
  // What does not parse cannot pass: the same thing would be said twice, the second time less clearly.
  if (syntax.problems.length > 0) return syntax;
  const commands = [await typeCommand(checks.after), await testCommand(checks.after)];
  const verdicts: Verdict[] = [syntax];
  for (const command of commands) {
    if (command !== undefined) verdicts.push(await checkCommand(checks, command));
  }
  return joined(...verdicts);
}

async function checkCommand(checks: Checks, { name, command, shown }: ProjectCommand): Promise<Verdict> {
  const after = await checks.after.run(command);
  if (succeeded(after)) return verdict([], [reportOf(name, shown, after)]);
  const before = await checks.before.run(command);
  const passed = succeeded(before);
  const report: CheckReport = reportOf(name, shown, after, { before: passed });
  const problem = `The project's ${name} passed before this change and fail now: \`${shown}\` ${howItEnded(after)}`;
  return verdict(passed ? [problem] : [], [report]);
}
