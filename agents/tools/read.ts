import { z } from "zod";
import { hostPath, shownPath } from "./paths.ts";
import { textOf } from "./text.ts";
import { defineTool, ToolFailure } from "./tool.ts";

const DEFAULT_LINES = 2000;
const MAX_LINE_CHARS = 2000;

export const read = defineTool({
  name: "read",
  permission: "read",
  description: `Reads a text file. Each line is shown with its number and a tab before it. Shows ${DEFAULT_LINES} lines at most; offset and limit show other parts of a long file.`,
  params: z.object({
    filePath: z.string().min(1).describe("Path of the file, relative to the working directory"),
    offset: z.coerce
      .number()
      .int()
      .positive()
      .optional()
      .describe("The line to start at, counted from 1 (default 1)"),
    limit: z.coerce
      .number()
      .int()
      .positive()
      .optional()
      .describe(`How many lines to read (default ${DEFAULT_LINES})`),
  }),
  title: ({ filePath }, directory) => shownPath(filePath, directory),
  async run({ filePath, offset = 1, limit = DEFAULT_LINES }, { host, outputChars }) {
    const path = hostPath(filePath, host.directory);
    const lines = textOf(await host.read(path), path).split("\n");
    // A last line feed ends a line, it does not begin another.
    if (lines.at(-1) === "") lines.pop();
    if (lines.length === 0) return "(The file is empty.)";
    if (offset > lines.length) {
      throw new ToolFailure(`${path} has only ${lines.length} lines; offset ${offset} is beyond its end.`);
    }
    return numbered(lines, { first: offset - 1, most: limit, chars: outputChars });
  },
});

/** As many lines as fit, and how to go on. */
function numbered(lines: readonly string[], part: { first: number; most: number; chars: number }): string {
  const shown: string[] = [];
  const end = Math.min(lines.length, part.first + part.most);
  let chars = 0;
  let at = part.first;
  for (; at < end; at += 1) {
    const line = `${at + 1}\t${cut(lines[at] ?? "")}`;
    chars += line.length + 1;
    if (chars > part.chars - 100 && shown.length > 0) break;
    shown.push(line);
  }
  if (at < lines.length) {
    shown.push(`(Lines ${part.first + 1}-${at} of ${lines.length}. Go on with offset ${at + 1}.)`);
  } else if (part.first > 0) {
    shown.push(`(Lines ${part.first + 1}-${at} of ${lines.length}: the end of the file.)`);
  }
  return shown.join("\n");
}

function cut(line: string): string {
  const text = line.endsWith("\r") ? line.slice(0, -1) : line;
  if (text.length <= MAX_LINE_CHARS) return text;
  return `${text.slice(0, MAX_LINE_CHARS)}… (${text.length - MAX_LINE_CHARS} characters more)`;
}
