import type { ProposedFile } from "../agent.ts";
import { textOf } from "../validation/files.ts";
import { holdsTests, isTestPath, testFile } from "../validation/test-files.ts";

/** What would make a project's tests say less than before, by rule. */
const RULES = {
  removed: (path: string) => `${path}: a test file that was there was removed.`,
  skipped: (path: string) => `${path}: tests were left out, or leave others out, by skip, only or the like.`,
  fewerTests: (path: string) => `${path}: holds fewer tests than before.`,
  fewerAssertions: (path: string) => `${path}: asserts less than before.`,
  nothingAsserted: (path: string) => `${path}: holds tests that assert nothing.`,
} as const;

/** Where a change deletes or weakens tests; a file that went elsewhere whole is not removed. */
export function weakenedTests(files: readonly ProposedFile[]): string[] {
  const added = files.flatMap(({ path, before, after }) => {
    const text = before === null ? textOf(after) : undefined;
    return text === undefined || !isTestPath(path) ? [] : [testFile(path, text)];
  });
  return files.flatMap((file) => {
    const before = textOf(file.before);
    if (before !== undefined && file.after === null) {
      if (!holdsTests(file.path, before)) return [];
      const { tests, assertions } = testFile(file.path, before);
      const moved = added.some((each) => each.tests >= tests && each.assertions >= assertions);
      return moved ? [] : [RULES.removed(file.path)];
    }
    const after = textOf(file.after);
    return after === undefined || !isTestPath(file.path) ? [] : weakened(file.path, before, after);
  });
}

function weakened(path: string, before: string | undefined, after: string): string[] {
  const now = testFile(path, after);
  const then = testFile(path, before ?? "");
  const problems: string[] = [];
  if (now.skips > then.skips) problems.push(RULES.skipped(path));
  if (now.tests < then.tests) problems.push(RULES.fewerTests(path));
  if (now.assertions < then.assertions) problems.push(RULES.fewerAssertions(path));
  if (now.tests > 0 && now.assertions === 0) problems.push(RULES.nothingAsserted(path));
  return problems;
}
