import type { Jail } from "#sandbox";
import { IgnoreRules, isNeverKept, isRulesFile } from "#workspaces/ignored.ts";

const MAX_DEPTH = 64;
const MAX_RULES_BYTES = 256 * 1024;
/** Rules files beyond these are not read: no project has so many. */
const MAX_RULES_FILES = 200;
/** Directories count as entries too. */
const ENTRIES_PER_FILE = 3;

/** Paths of the files below `directory`, without those that its .gitignore files leave out, sorted. */
export async function listFiles(jail: Jail, directory: string, maxFiles: number): Promise<string[]> {
  const rules = new IgnoreRules();
  // The root's own rules first: most of what is ignored is then not even looked at.
  await readRules(jail, directory, ".gitignore", rules);
  const walk = await jail.walk(
    {
      maxEntries: maxFiles * ENTRIES_PER_FILE,
      maxDepth: MAX_DEPTH,
      ignore: (path, kind) => kind === "directory" && (isNeverKept(path) || rules.ignores(path, kind)),
    },
    directory,
  );
  const files = walk.entries.flatMap(({ kind, path }) => (kind === "file" ? [path] : []));
  const nested = files.filter((path) => isRulesFile(path) && path !== ".gitignore");
  for (const path of nested.slice(0, MAX_RULES_FILES)) await readRules(jail, directory, path, rules);
  const found: string[] = [];
  for (const path of files) {
    if (found.length >= maxFiles) break;
    if (!rules.ignores(path, "file")) found.push(path);
  }
  return found;
}

async function readRules(jail: Jail, directory: string, path: string, rules: IgnoreRules): Promise<void> {
  const file = await jail.read(`${directory}/${path}`, MAX_RULES_BYTES).catch(() => undefined);
  if (file !== undefined) rules.add(path, file.content.toString("utf8"));
}
