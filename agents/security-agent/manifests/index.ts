import type { CheckReport, Finding } from "#schemas";
import type { Tree } from "../../checks.ts";
import { textOf } from "../../validation/files.ts";
import { dockerfiles, scripts } from "./containers.ts";
import { packageLocks, packageManifests } from "./npm.ts";
import { pyprojects, requirements } from "./python.ts";
import type { Scanner } from "./scanner.ts";
import { secrets } from "./secrets.ts";
import { workflows } from "./workflows.ts";

/** The rules as a table of contents. */
const SCANNERS: readonly Scanner[] = [
  packageManifests,
  packageLocks,
  requirements,
  pyprojects,
  dockerfiles,
  scripts,
  workflows,
  secrets,
];
const MAX_FILES = 3000;
const MAX_BYTES = 48 * 1024 * 1024;
/** One bad file must not hide the others. */
const MAX_PER_FILE = 25;

/** What rules of our own find in a project's manifests and texts, without a model and without the network. */
export async function manifestFindings(tree: Tree): Promise<{ findings: Finding[]; report: CheckReport }> {
  const listed = await tree.list();
  const all = listed.filter((path) => !/(^|\/)(node_modules|\.git)\//.test(path));
  const paths = new Set(listed);
  const findings: Finding[] = [];
  let bytes = 0;
  let read = 0;
  // Manifests come first: they are few, and a large project must not keep them from being read.
  const urgent = (path: string) => SCANNERS.some((scanner) => scanner !== secrets && scanner.wants(path));
  const ordered = [...all.filter(urgent), ...all.filter((path) => !urgent(path))];
  for (const path of ordered.slice(0, MAX_FILES)) {
    if (bytes > MAX_BYTES) break;
    const content = await tree.read(path);
    read += 1;
    bytes += content?.byteLength ?? 0;
    const text = textOf(content);
    if (text === undefined || text.includes("\0")) continue;
    const found = SCANNERS.filter((scanner) => scanner.wants(path)).flatMap((scanner) =>
      scanner.scan({ path, text, paths }),
    );
    findings.push(...found.slice(0, MAX_PER_FILE));
  }
  const left = all.length - read;
  const output = `${read} files looked through, ${findings.length} findings${left > 0 ? `; ${left} files were too many` : ""}.`;
  return { findings, report: { name: "manifests and keys", passed: left === 0, output } };
}
