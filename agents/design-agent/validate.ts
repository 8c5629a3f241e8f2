import type { ProposedChange, ProposedFile, Verdict } from "../agent.ts";
import type { Checks, Tree } from "../checks.ts";
import { fileProblems, textOf } from "../validation/files.ts";
import { verdict } from "../validation/verdict.ts";
import { pictureProblems, previewProblems } from "./preview.ts";

const FOLDER = "design/";
const KINDS = /\.(html|md|svg|css|json|txt)$/i;
/** A few sentences: less gives no reason. */
const LEAST_REASON_CHARS = 200;

/** Proposals lie in one folder, previews are whole and load nothing, and a text gives the reasons for each. */
export async function validateDesign(change: ProposedChange, checks: Checks): Promise<Verdict> {
  const problems = fileProblems(change);
  if (problems.length > 0) return verdict(problems);
  const written = change.files.filter((file) => file.after !== null);
  const previews = written.filter((file) => isPreview(file.path));
  // A question about one that is there, or other words for its reasons, needs no new one.
  if (previews.length === 0 && !(await checks.after.list()).some(isPreview)) {
    problems.push("There is no preview: DesignAgent's result is at least one HTML file below design/.");
  }
  problems.push(...change.files.flatMap(placeProblems), ...written.flatMap(contentProblems));
  if (previews.length > 0) problems.push(...(await reasonProblems(previews, checks.after)));
  const output = `${previews.length} previews read as whole documents.`;
  const report = { name: "previews", passed: problems.length === 0, output };
  return verdict(problems, previews.length === 0 ? [] : [report]);
}

function isPreview(path: string): boolean {
  return path.startsWith(FOLDER) && /\.html$/i.test(path);
}

function placeProblems({ path }: ProposedFile): string[] {
  if (!path.startsWith(FOLDER)) return [`${path}: lies outside design/, where proposals belong.`];
  return KINDS.test(path) ? [] : [`${path}: proposals are HTML, Markdown, SVG, CSS, JSON or plain text.`];
}

function contentProblems({ path, after }: ProposedFile): string[] {
  const text = textOf(after);
  if (text === undefined) return [`${path}: is no text, or too large to be read.`];
  if (isPreview(path)) return previewProblems(text).map((problem) => `${path}: ${problem}`);
  return /\.svg$/i.test(path) ? pictureProblems(text).map((problem) => `${path}: ${problem}`) : [];
}

/** Every new preview is named in a text that says something of it. */
async function reasonProblems(previews: readonly ProposedFile[], tree: Tree): Promise<string[]> {
  const paths = (await tree.list()).filter((path) => path.startsWith(FOLDER) && /\.md$/i.test(path));
  const texts: string[] = [];
  for (const path of paths) texts.push(textOf(await tree.read(path)) ?? "");
  const reasons = texts.filter((text) => text.replace(/\s+/g, " ").trim().length >= LEAST_REASON_CHARS);
  if (reasons.length === 0) {
    return [
      `The reasons are missing: a Markdown file below design/ of at least ${LEAST_REASON_CHARS} characters.`,
    ];
  }
  return previews.flatMap(({ path }) => {
    const name = path.slice(path.lastIndexOf("/") + 1);
    return reasons.some((text) => text.includes(name))
      ? []
      : [`${path}: no Markdown file below design/ names it.`];
  });
}
