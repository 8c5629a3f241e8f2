import { z } from "zod";
import type { ExecResult } from "./host.ts";
import { hostPath } from "./paths.ts";
import { fitting } from "./text.ts";
import { defineTool, ToolFailure } from "./tool.ts";

const TIMEOUT_MS = 20_000;
const MAX_PER_FILE = 100;
const MAX_LINE_CHARS = 300;
const HINT = "Narrow it with path, include or a longer pattern.";

export const grep = defineTool({
  name: "grep",
  permission: "grep",
  description:
    "Searches the content of files with a regular expression and shows path, line number and line of each match. Ignored files are left out.",
  params: z.object({
    pattern: z.string().min(1).max(1000).describe("Regular expression"),
    path: z.string().optional().describe("Directory or file to search (default: the working directory)"),
    include: z.string().max(200).optional().describe('Only files of this kind, as in "*.ts" or "*.{js,ts}"'),
  }),
  title: ({ pattern }) => pattern,
  async run({ pattern, path = "", include }, { host, signal, outputChars }) {
    const command = searchCommand({ pattern, path: hostPath(path, host.directory), include });
    // Somebody else's expression may take for ever: it is matched in the sandbox, where time and memory are bounded.
    const result = await host.exec(command, { timeoutMs: TIMEOUT_MS, signal, outputBytes: outputChars * 2 });
    const lines = result.output
      .split("\n")
      .map((line) => line.replace(/^\.\//, "").slice(0, MAX_LINE_CHARS * 2));
    const found = lines.filter((line) => line !== "");
    if (result.timedOut) throw new ToolFailure(`The search took longer than ${TIMEOUT_MS} ms. ${HINT}`);
    if (found.length === 0 || result.code === 1) return "Nothing matches.";
    if (result.code !== 0) throw new ToolFailure(refused(result, outputChars));
    const text = fitting(found, { total: found.length, chars: outputChars, hint: HINT });
    return result.truncated ? `${text}\n(There is more. ${HINT})` : text;
  },
});

/** ripgrep where the machine has it, else grep; neither follows links nor reads the project's settings. */
function searchCommand(search: { pattern: string; path: string; include: string | undefined }): string {
  const pattern = quoted(search.pattern);
  const place = quoted(`./${search.path}`);
  const { include } = search;
  const rg = [
    "rg --no-config --no-require-git --hidden --no-messages --no-heading --with-filename --line-number",
    `--color never --sort path --max-count ${MAX_PER_FILE}`,
    `--max-columns ${MAX_LINE_CHARS} --max-columns-preview`,
    ...(include === undefined ? [] : ["--glob", quoted(include)]),
    `--glob '!.git' --regexp=${pattern} -- ${place}`,
  ];
  const plain = [
    `grep -rnIEHs --color=never --max-count=${MAX_PER_FILE} --exclude-dir=.git --exclude-dir=node_modules`,
    ...(include === undefined ? [] : [`--include=${quoted(include)}`]),
    `--regexp=${pattern} -- ${place}`,
  ];
  return `if command -v rg >/dev/null 2>&1; then ${rg.join(" ")}; else ${plain.join(" ")}; fi`;
}

/** As one word of a shell, whatever it holds. */
function quoted(text: string): string {
  return `'${text.replaceAll("\0", "").replaceAll("'", "'\\''")}'`;
}

function refused({ code, output }: ExecResult, maxChars: number): string {
  return `The search failed (exit code ${code}). ${output.trim().slice(0, Math.min(maxChars, 1000))}`;
}
