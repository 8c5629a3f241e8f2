import type { ProposedChange, Verdict } from "../agent.ts";
import type { Checks } from "../checks.ts";
import { fileProblems } from "../validation/files.ts";
import { checkProject } from "../validation/project.ts";
import { verdict } from "../validation/verdict.ts";

/** A change is whole, parses, and leaves the project's own tests as they were: passing, where they did. */
export async function validateCodeChange(change: ProposedChange, checks: Checks): Promise<Verdict> {
  const problems = fileProblems(change);
  if (problems.length > 0 || change.files.length === 0) return verdict(problems);
  return await checkProject(
    checks,
    change.files.map((file) => file.path),
  );
}
