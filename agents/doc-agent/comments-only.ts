import type { ProposedFile } from "../agent.ts";
import type { Checks, Tree } from "../checks.ts";
import { textOf } from "../validation/files.ts";
import { jsText } from "../validation/js-text.ts";
import { quoted, quotedPath } from "../validation/shell.ts";
import { succeeded } from "../validation/verdict.ts";

const TEXTS = /\.(md|mdx|markdown|txt|rst|adoc)$/i;
const NAMES = /(^|\/)(README|CHANGELOG|CONTRIBUTING|AUTHORS|NOTICE|LICENSE|SECURITY|CODE_OF_CONDUCT)$/i;
const SCRIPTS = /\.[cm]?[jt]sx?$/;
const PYTHON = /\.pyi?$/;

/** Prints one digest per file of what Python makes of it, docstrings left out; nothing for what does not parse. */
const PYTHON_DIGESTS = `
import ast, hashlib, sys
for index, path in enumerate(sys.argv[1:]):
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read())
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                first = node.body[0] if node.body else None
                if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
                    node.body = node.body[1:] or [ast.Pass()]
        print(f"{index}\\t{hashlib.sha256(ast.dump(tree).encode('utf-8', 'surrogatepass')).hexdigest()}")
    except (OSError, SyntaxError, ValueError, RecursionError):
        pass`;

/** Where a change is more than documentation: in code only comments and docstrings may differ. */
export async function codeProblems(files: readonly ProposedFile[], checks: Checks): Promise<string[]> {
  const code = files.filter(({ path }) => !TEXTS.test(path) && !NAMES.test(path));
  const problems: string[] = [];
  const python: string[] = [];
  for (const file of code) {
    const { path, before, after } = file;
    if (before === null || after === null) {
      problems.push(`${path}: is no documentation, and was ${after === null ? "removed" : "added"}.`);
    } else if (PYTHON.test(path)) python.push(path);
    else if (!SCRIPTS.test(path))
      problems.push(`${path}: is neither documentation nor code whose comments can be told.`);
    else problems.push(...scriptProblems(file));
  }
  return [...problems, ...(await pythonProblems(python, checks))];
}

function scriptProblems({ path, before, after }: ProposedFile): string[] {
  const old = jsText(textOf(before) ?? "`");
  const now = jsText(textOf(after) ?? "`");
  if (old === undefined || now === undefined)
    return [`${path}: it cannot be told for certain that only comments changed.`];
  return old.code === now.code ? [] : [`${path}: more than comments changed.`];
}

async function pythonProblems(paths: readonly string[], { before, after }: Checks): Promise<string[]> {
  if (paths.length === 0) return [];
  const [old, now] = [await digests(before, paths), await digests(after, paths)];
  return paths.flatMap((path) => {
    const [was, is] = [old.get(path), now.get(path)];
    if (was === undefined || is === undefined) {
      return [`${path}: it cannot be told for certain that only comments and docstrings changed.`];
    }
    return was === is ? [] : [`${path}: more than comments and docstrings changed.`];
  });
}

async function digests(tree: Tree, paths: readonly string[]): Promise<Map<string, string>> {
  const run = await tree.run(
    `python3 -W ignore -c ${quoted(PYTHON_DIGESTS)} ${paths.map(quotedPath).join(" ")}`,
  );
  const found = new Map<string, string>();
  if (!succeeded(run)) return found;
  for (const [, index, digest = ""] of run.output.matchAll(/^(\d+)\t([0-9a-f]{64})$/gm)) {
    const path = paths[Number(index)];
    if (path !== undefined) found.set(path, digest);
  }
  return found;
}
