import ignore, { type Ignore } from "ignore";

/** Directories no project keeps: version control, installed packages, caches of tools. */
const NEVER_KEPT = new Set([
  ".git",
  "node_modules",
  "__pycache__",
  ".venv",
  ".cache",
  ".npm",
  ".pytest_cache",
  ".mypy_cache",
  ".ruff_cache",
]);

/** What a repository tells agents' programs to load and run; it is kept from them, and from their results. */
const AGENT_CONFIGURATION =
  /^(\.opencode|\.claude|\.codex|\.cursor|\.gemini|\.agents)(\/|$)|^(opencode\.jsonc?|\.mcp\.json|\.cursorrules)$/;

/** Whether a path is configuration of an agent's program (AGENTS.md is only text and not meant). */
export function isAgentConfiguration(path: string): boolean {
  return AGENT_CONFIGURATION.test(path);
}

/** Whether a directory of this path is never part of a result unless the project has files in it. */
export function isNeverKept(path: string): boolean {
  return NEVER_KEPT.has(path.slice(path.lastIndexOf("/") + 1));
}

export function isRulesFile(path: string): boolean {
  return path === ".gitignore" || path.endsWith("/.gitignore");
}

/** The .gitignore files of a tree, applied as git does: the deepest one that has a say decides. */
export class IgnoreRules {
  /** Directory ("" = root) -> its rules. */
  readonly #rules = new Map<string, Ignore>();

  /** `path` is the .gitignore file's own. */
  add(path: string, content: string): void {
    const directory = path.includes("/") ? path.slice(0, path.lastIndexOf("/")) : "";
    this.#rules.set(directory, ignore({ allowRelativePaths: false }).add(content));
  }

  ignores(path: string, kind: "file" | "directory"): boolean {
    const names = path.split("/");
    for (let depth = names.length - 1; depth >= 0; depth -= 1) {
      const rules = this.#rules.get(names.slice(0, depth).join("/"));
      if (rules === undefined) continue;
      const relative = names.slice(depth).join("/");
      const { ignored, unignored } = rules.test(kind === "directory" ? `${relative}/` : relative);
      if (ignored || unignored) return ignored;
    }
    return false;
  }
}
