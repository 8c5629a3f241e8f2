import type { ProposedChange, ProposedFile, Verdict } from "../agent.ts";
import type { CheckRun, Checks } from "../checks.ts";
import { fencedBlocks } from "../validation/fences.ts";
import { fileProblems } from "../validation/files.ts";
import { checkProject } from "../validation/project.ts";
import { isTestPath } from "../validation/test-files.ts";
import { howItEnded, joined, missing, reportOf, succeeded, verdict } from "../validation/verdict.ts";

const MAX_COMMAND_CHARS = 4000;

/**
 * An error was reproduced and mended: the command of the answer fails on the project as it was, given only the files
 * that it needs, and passes on the project as it is now, whose own tests hold.
 */
export async function validateRepair(change: ProposedChange, checks: Checks): Promise<Verdict> {
  const problems = fileProblems(change);
  const command = reproduction(change.answer);
  if (typeof command !== "string") problems.push(command.problem);
  if (change.files.length === 0) problems.push("Nothing was changed: the error cannot be mended.");
  if (problems.length > 0 || typeof command !== "string") return verdict(problems);
  const added = reproductionFiles(change, command);
  if (added.length === change.files.length) {
    return verdict(["Only the reproduction was written: nothing was changed that could mend the error."]);
  }
  const reproduced = await checkReproduction(checks, command, added);
  if (reproduced.problems.length > 0) return reproduced;
  const paths = change.files.map((file) => file.path);
  return joined(reproduced, await checkProject(checks, paths));
}

function reproduction(answer: string): string | { problem: string } {
  const blocks = fencedBlocks(answer, "repro").map((block) => block.trim());
  const [command = "", ...others] = blocks;
  if (command === "" || others.length > 0) {
    const found = blocks.length === 1 ? "an empty one" : `${blocks.length}`;
    return {
      problem: `The last message must hold one block \`\`\`repro with the command that reproduces the error; found: ${found}.`,
    };
  }
  if (command.length > MAX_COMMAND_CHARS) {
    return {
      problem: `The reproduction is longer than ${MAX_COMMAND_CHARS} characters: put it into a test or a file.`,
    };
  }
  return command;
}

/**
 * What the reproduction needs and the old project lacks: tests, and new files that the command names. Where that would
 * be the whole change, what was mended is among it: a file that was missing, or a test that was wrong itself.
 */
function reproductionFiles(change: ProposedChange, command: string): string[] {
  const words = new Set(command.split(/[^\w./@+-]+/).map((word) => word.slice(word.lastIndexOf("/") + 1)));
  const isNamed = (file: ProposedFile) =>
    file.before === null && words.has(file.path.slice(file.path.lastIndexOf("/") + 1));
  const isTest = (file: ProposedFile) => isTestPath(file.path);
  const there = change.files.filter((file) => file.after !== null);
  const choices = [
    there.filter((file) => isTest(file) || isNamed(file)),
    there.filter(isTest),
    there.filter((file) => isTest(file) && file.before === null),
  ];
  const chosen = choices.find((files) => files.length < change.files.length) ?? there;
  return chosen.map((file) => file.path);
}

async function checkReproduction(
  checks: Checks,
  command: string,
  files: readonly string[],
): Promise<Verdict> {
  const old = files.length === 0 ? checks.before : checks.overlay(files);
  const before = await old.run(command);
  const after = await checks.after.run(command);
  const report = reportOf("reproduction", command, after, { before: succeeded(before) });
  const problems = [...oldProblems(command, before)];
  if (!succeeded(after)) problems.push(`The reproduction still fails: \`${command}\` ${howItEnded(after)}`);
  const shown = reportOf("reproduction on the old code", command, before, { passed: problems.length === 0 });
  return verdict(problems, [shown, report]);
}

function oldProblems(command: string, before: CheckRun): string[] {
  if (missing(before)) return [`The reproduction cannot be run: \`${command}\` ${howItEnded(before)}`];
  if (succeeded(before))
    return [`The reproduction does not fail on the old code: \`${command}\` passes there too.`];
  return [];
}
