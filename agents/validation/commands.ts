import type { Tree } from "../checks.ts";
import { textOf } from "./files.ts";
import { quoted, quotedPath } from "./shell.ts";

/** A way a project is tried out, as it says itself. */
export interface ProjectCommand {
  /** What it is called in a report. */
  readonly name: "tests" | "types";
  /** For `sh -c`. */
  readonly command: string;
  /** As people know it. */
  readonly shown: string;
}

/** A project's scripts by name: package.json's `scripts`; none when there is no such file, or it is broken. */
type Scripts = ReadonlyMap<string, string>;

const NODE_TEST = /(^|\/)[^/]+[.-]test\.[cm]?[jt]s$|(^|\/)test\/[^.][^/]*\.[cm]?[jt]s$|(^|\/)test\.[cm]?js$/;
const PYTHON_TEST = /(^|\/)(test_[^/]*|[^/]*_test)\.py$/;
/** What `npm init` writes for want of tests. */
const NO_TESTS = /no test specified/;
const TYPE_SCRIPTS = ["typecheck", "type-check", "check:types", "types", "tsc"];

async function scriptsOf(tree: Tree): Promise<Scripts> {
  const text = textOf(await tree.read("package.json"));
  if (text === undefined) return new Map();
  try {
    const parsed: unknown = JSON.parse(text);
    const scripts =
      parsed !== null && typeof parsed === "object" && "scripts" in parsed ? parsed.scripts : {};
    const entries = Object.entries(scripts !== null && typeof scripts === "object" ? scripts : {});
    return new Map(entries.filter((entry): entry is [string, string] => typeof entry[1] === "string"));
  } catch {
    return new Map();
  }
}

/** How the project is tested: its own script, else what its files tell; undefined when it has no tests. */
export async function testCommand(tree: Tree): Promise<ProjectCommand | undefined> {
  const scripts = await scriptsOf(tree);
  const own = scripts.get("test");
  if (own !== undefined && own.trim() !== "" && !NO_TESTS.test(own))
    return scriptCommand("tests", "test", scripts);
  const paths = await tree.list();
  if (paths.some((path) => NODE_TEST.test(path))) {
    return { name: "tests", command: "node --test", shown: "node --test" };
  }
  return pythonTests(paths);
}

/** How its types are checked, when it says so. */
export async function typeCommand(tree: Tree): Promise<ProjectCommand | undefined> {
  const scripts = await scriptsOf(tree);
  const name = TYPE_SCRIPTS.find((each) => scripts.has(each));
  return name === undefined ? undefined : scriptCommand("types", name, scripts);
}

/** These test files run by themselves, by what comes with their language; undefined for any other language. */
export function testsAlone(paths: readonly string[]): ProjectCommand | undefined {
  const scripts = paths.filter((path) => /\.[cm]?[jt]s$/.test(path));
  const python = paths.filter((path) => path.endsWith(".py"));
  if (scripts.length > 0 && python.length === 0) {
    const command = `node --test ${scripts.map(quotedPath).join(" ")}`;
    return { name: "tests", command, shown: command };
  }
  if (python.length > 0 && scripts.length === 0) {
    const files = python.map(quotedPath).join(" ");
    return { name: "tests", command: pythonCommand(files, files), shown: `python3 -m unittest ${files}` };
  }
  return undefined;
}

/**
 * A script of package.json without npm, which may not be there and takes longer than most tests: with what comes
 * before and after it, and the project's own programs on PATH.
 */
function scriptCommand(name: ProjectCommand["name"], script: string, scripts: Scripts): ProjectCommand {
  const parts = [`pre${script}`, script, `post${script}`].flatMap((part) => scripts.get(part) ?? []);
  const command = [
    'export PATH="$PWD/node_modules/.bin:$PATH"',
    parts.map((part) => `sh -c ${quoted(part)}`).join(" && "),
  ].join("\n");
  return { name, command, shown: `npm run ${script}` };
}

function pythonTests(paths: readonly string[]): ProjectCommand | undefined {
  const tests = paths.filter((path) => PYTHON_TEST.test(path));
  const first = tests[0];
  if (first === undefined) return undefined;
  const folder = first.includes("/") ? first.slice(0, first.indexOf("/")) : ".";
  const together = tests.every((path) =>
    folder === "." ? !path.includes("/") : path.startsWith(`${folder}/`),
  );
  const start = together ? folder : ".";
  const top = paths.includes(`${start}/__init__.py`) ? " -t ." : "";
  const rest = `discover -v -s ${quotedPath(start)} -p '*test*.py'${top}`;
  return { name: "tests", command: pythonCommand("", rest), shown: "python3 -m pytest, else unittest" };
}

/** pytest where it is installed: many projects' tests are written for it; else what Python brings along. */
function pythonCommand(pytest: string, unittest: string): string {
  return [
    "export PYTHONDONTWRITEBYTECODE=1",
    "if python3 -c 'import pytest' 2>/dev/null; then",
    `  exec python3 -m pytest -q -p no:cacheprovider ${pytest}`,
    "fi",
    `exec python3 -m unittest ${unittest}`,
  ].join("\n");
}
