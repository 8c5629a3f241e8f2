import type { ProposedChange, Verdict } from "../agent.ts";
import type { Checks } from "../checks.ts";
import { fileProblems } from "../validation/files.ts";
import { verdict } from "../validation/verdict.ts";
import { codeProblems } from "./comments-only.ts";
import { isPage, pageProblems } from "./pages.ts";

/** Only documentation changed, and what it says of the project is there: links, anchors, scripts. */
export async function validateDocs(change: ProposedChange, checks: Checks): Promise<Verdict> {
  const problems = fileProblems(change);
  if (problems.length > 0 || change.files.length === 0) return verdict(problems);
  const code = await codeProblems(change.files, checks);
  const pages = await pageProblems(change.files, checks.before, checks.after);
  const count = change.files.filter((file) => isPage(file.path)).length;
  return verdict(
    [...code, ...pages],
    [
      {
        name: "nothing but documentation",
        passed: code.length === 0,
        output: `${change.files.length} files compared.`,
      },
      {
        name: "links, anchors, scripts",
        passed: pages.length === 0,
        output: `${count} Markdown pages read.`,
      },
    ],
  );
}
