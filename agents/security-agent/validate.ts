import { type Finding, findingSchema, SEVERITIES } from "#schemas";
import type { ProposedChange, Verdict } from "../agent.ts";
import type { Checks, Tree } from "../checks.ts";
import { fencedBlocks } from "../validation/fences.ts";
import { verdict } from "../validation/verdict.ts";
import { manifestFindings } from "./manifests/index.ts";

/** More than anybody works through; and a bound on what one task's event holds. */
const MAX_FINDINGS = 200;
const MAX_BLOCK_CHARS = 1_000_000;
const NEWLINE = 10;

/** An audit: findings that fit the schema, at places that are there; nothing was changed. Ours are put beside them. */
export async function validateAudit(change: ProposedChange, checks: Checks): Promise<Verdict> {
  const problems: string[] = [];
  if (change.files.length > 0) problems.push("An audit changes nothing, and files were changed.");
  const block = findingsBlock(change.answer);
  const parsed = typeof block === "string" ? parseFindings(block) : block;
  problems.push(...parsed.problems);
  problems.push(...(await placeProblems(checks.after, parsed.findings)));
  if (problems.length > 0) return verdict(problems);
  const { findings, report } = await manifestFindings(checks.after);
  return { ...verdict([], [report]), findings: merged(parsed.findings, findings) };
}

interface Parsed {
  readonly findings: Finding[];
  readonly problems: string[];
}

function findingsBlock(answer: string): string | Parsed {
  const blocks = fencedBlocks(answer, "findings");
  const [block, ...others] = blocks;
  if (block !== undefined && others.length === 0 && block.length <= MAX_BLOCK_CHARS) return block;
  const problem = `The last message must hold one block \`\`\`findings with a JSON list, [] for none; found: ${blocks.length}.`;
  return { findings: [], problems: [problem] };
}

function parseFindings(block: string): Parsed {
  let value: unknown;
  try {
    value = JSON.parse(block);
  } catch (error) {
    const why = error instanceof Error ? error.message.slice(0, 200) : "";
    return { findings: [], problems: [`The findings are no valid JSON: ${why}`] };
  }
  if (!Array.isArray(value)) return { findings: [], problems: ["The findings must be a JSON list."] };
  if (value.length > MAX_FINDINGS) {
    return {
      findings: [],
      problems: [`There are more than ${MAX_FINDINGS} findings: keep those that matter most.`],
    };
  }
  const findings: Finding[] = [];
  const problems: string[] = [];
  for (const [index, each] of value.entries()) {
    const { success, data, error } = findingSchema.safeParse(each);
    if (success) findings.push(data);
    else {
      const wrong = error.issues
        .slice(0, 5)
        .map(({ path, message }) => `${path.join(".") || "it"}: ${message}`);
      problems.push(`Finding ${index + 1} does not fit: ${wrong.join("; ")}.`);
    }
  }
  return { findings, problems };
}

/** Whether every finding is at a line that is there. */
async function placeProblems(tree: Tree, findings: readonly Finding[]): Promise<string[]> {
  const paths = new Set(await tree.list());
  const lines = new Map<string, number | null>();
  const problems: string[] = [];
  for (const [index, { file, line }] of findings.entries()) {
    if (!paths.has(file)) {
      problems.push(
        `Finding ${index + 1}: there is no file ${JSON.stringify(file)}, relative to the project.`,
      );
      continue;
    }
    if (!lines.has(file)) lines.set(file, linesOf(await tree.read(file)));
    const count = lines.get(file) ?? null;
    if (count !== null && line > count)
      problems.push(`Finding ${index + 1}: ${file} has ${count} lines, not ${line}.`);
  }
  return problems;
}

function linesOf(content: Uint8Array | null): number | null {
  if (content === null) return null;
  let count = 1;
  for (const byte of content) if (byte === NEWLINE) count += 1;
  return content.at(-1) === NEWLINE ? Math.max(1, count - 1) : count;
}

/** The worst first; what both found stands once, in the agent's words. */
function merged(said: readonly Finding[], ours: readonly Finding[]): Finding[] {
  const keyOf = ({ file, line, cwe }: Finding) => `${file}\0${line}\0${cwe}`;
  const known = new Set(said.map(keyOf));
  const rank = ({ severity }: Finding) => SEVERITIES.indexOf(severity);
  return [...said, ...ours.filter((finding) => !known.has(keyOf(finding)))]
    .toSorted((a, b) => rank(a) - rank(b))
    .slice(0, MAX_FINDINGS);
}
