import { quoted, quotedPath } from "./shell.ts";

/**
 * How files of one kind are parsed where they lie. Every command says one line per file that does not parse, its place
 * in the list, a tab and why, and ends with code 0; it runs nothing of the files.
 */
export interface Parser {
  readonly name: string;
  /** `head`: the first line of a file whose name tells nothing, else the empty string. */
  wants(path: string, head: string): boolean;
  command(paths: readonly string[]): string;
}

/**
 * Node's `--check` knows no TypeScript, and starts anew for every file. JavaScript: as a module or as a script, as the
 * nearest package.json says, either when it says nothing. What holds JSX is left alone: Node cannot parse it.
 * TypeScript: what Node's own type stripping takes. JSON: comments and trailing commas only where tools allow them.
 */
const NODE_PROGRAM = `
const { readFileSync, statSync } = require("node:fs");
const { dirname, join } = require("node:path");
const { stripTypeScriptTypes } = require("node:module");
const vm = require("node:vm");
const JSX = /(return|=>|[=(,:?&|])\\s*\\(?\\s*<[A-Za-z>][^;]{0,2000}(\\/>|<\\/)/;
const STRICT = /(^|\\/)(package|package-lock|composer)\\.json$/;
function kindOf(file) {
  if (/\\.m[jt]s$/.test(file)) return "module";
  if (/\\.c[jt]s$/.test(file)) return "commonjs";
  for (let at = dirname(file); ; at = dirname(at)) {
    try {
      const { type } = JSON.parse(readFileSync(join(at, "package.json"), "utf8"));
      return type === "module" || type === "commonjs" ? type : "either";
    } catch {}
    if (at === "." || at === "/") return "either";
  }
}
function asModule(text, file) { new vm.SourceTextModule(text, { identifier: file }); }
function asScript(text, file) {
  const names = ["exports", "require", "module", "__filename", "__dirname"];
  vm.compileFunction(text.replace(/^#!/, "//"), names, { filename: file });
}
function script(text, file) {
  if (JSX.test(text) || /^\\s*(\\/\\/|\\/\\*)[^\\n]*@flow/.test(text)) return;
  const kind = kindOf(file);
  if (kind === "module") return asModule(text, file);
  if (kind === "commonjs") return asScript(text, file);
  try { asModule(text, file); } catch (error) {
    try { asScript(text, file); } catch { throw error; }
  }
}
function json(text, file) {
  const bare = text.replace(/^\\uFEFF/, "");
  try { JSON.parse(bare); } catch (error) {
    if (STRICT.test(file)) throw error;
    const plain = bare.replace(/"(?:[^"\\\\\\n]|\\\\.)*"|\\/\\/[^\\n]*|\\/\\*[^]*?\\*\\//g, (part) => part[0] === '"' ? part : " ");
    const lean = plain.replace(/"(?:[^"\\\\\\n]|\\\\.)*"|(?<=[^\\s[{,:]\\s*),(?=\\s*[}\\]])/g, (part) => part[0] === '"' ? part : "");
    try { JSON.parse(lean); } catch { throw error; }
  }
}
function lineOf(error) { return /:(\\d+)$/.exec(String(error?.stack).split("\\n", 1)[0])?.[1]; }
// An error of a module does not say where it is.
function strippingError(text) { try { stripTypeScriptTypes(text); } catch (error) { return error; } }
process.argv.slice(1).forEach((file, index) => {
  let text;
  try {
    if (statSync(file).size > 2097152) return;
    text = readFileSync(file, "utf8");
  } catch { return; }
  try {
    if (file.endsWith(".json")) json(text, file);
    else if (/\\.[cm]?ts$/.test(file)) stripTypeScriptTypes(text, { mode: "transform" });
    else script(text, file);
  } catch (error) {
    const line = lineOf(error) ?? (file.endsWith("js") ? lineOf(strippingError(text)) : undefined);
    const said = String(error.message).replace(/\\s+/g, " ").slice(0, 200);
    console.log(index + "\\t" + said + (line === undefined ? "" : " (line " + line + ")"));
  }
});`;

const PYTHON_PROGRAM = `
import sys
for index, path in enumerate(sys.argv[1:]):
    try:
        with open(path, "rb") as file:
            text = file.read(2097153)
    except OSError:
        continue
    if len(text) > 2097152:
        continue
    try:
        compile(text, path, "exec", 0, True)
    except SyntaxError as error:
        print(f"{index}\\t{error.msg} (line {error.lineno})")
    except ValueError as error:
        print(f"{index}\\t{' '.join(str(error).split())[:200]}")`;

const list = (paths: readonly string[]) => paths.map(quotedPath).join(" ");

export const PARSERS: readonly Parser[] = [
  {
    name: "JavaScript, TypeScript, JSON",
    wants: (path) => /\.([cm]?[jt]s|json)$/.test(path),
    command: (paths) =>
      `node --no-warnings --experimental-vm-modules -e ${quoted(NODE_PROGRAM)} -- ${list(paths)}`,
  },
  {
    name: "Python",
    wants: (path, head) => /\.py$/.test(path) || /^#!.*\bpython3?\b/.test(head),
    command: (paths) => `python3 -W ignore -c ${quoted(PYTHON_PROGRAM)} ${list(paths)}`,
  },
  {
    name: "shell",
    wants: (path, head) => /\.(sh|bash)$/.test(path) || /^#!.*\b(sh|bash|dash)\b/.test(head),
    // A file that says nothing of its shell may be for either.
    command: (paths) =>
      [
        "parse() {",
        '  case "$(head -c 64 "$2" | head -n 1)" in',
        '    "#!"*bash*) command -v bash >/dev/null || return 0; said=$(bash -n "$2" 2>&1) ;;',
        '    "#!"*zsh* | "#!"*fish* | "#!"*ksh*) return 0 ;;',
        '    "#!"*) said=$(sh -n "$2" 2>&1) ;;',
        '    *) said=$(sh -n "$2" 2>&1) || { command -v bash >/dev/null && bash -n "$2" 2>/dev/null; } ;;',
        '  esac || printf "%s\\t%s\\n" "$1" "$(printf "%s" "$said" | head -n 1)"',
        "}",
        ...paths.map((path, index) => `parse ${index} ${quotedPath(path)}`),
        "exit 0",
      ].join("\n"),
  },
];
