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
    const text = textOf(await host.read(path), path);
    if (text === "") return "(The file is empty.)";
    const lines = countLines(text);
    if (offset > lines) {
      throw new ToolFailure(`${path} has only ${lines} lines; offset ${offset} is beyond its end.`);
    }
    return numbered(text, { lines, first: offset - 1, most: limit, chars: outputChars });
  },
});

/** A last line feed ends a line, it does not begin another. */
function countLines(text: string): number {
  let lines = text.endsWith("\n") ? 0 : 1;
  for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n", at + 1)) lines += 1;
  return lines;
}

/** As many lines as fit, and how to go on. Only these are taken out: a file may be nothing but line feeds. */
function numbered(text: string, part: { lines: number; first: number; most: number; chars: number }): string {
  const shown: string[] = [];
  const end = Math.min(part.lines, part.first + part.most);
  let begin = 0;
  for (let line = 0; line < part.first; line += 1) begin = text.indexOf("\n", begin) + 1;
  let chars = 0;
  let at = part.first;
  for (; at < end; at += 1) {
    const feed = text.indexOf("\n", begin);
    const stop = feed === -1 ? text.length : feed;
    const line = `${at + 1}\t${cut(text.slice(begin, stop))}`;
    chars += line.length + 1;
    if (chars > part.chars - 100 && shown.length > 0) break;
    shown.push(line);
    begin = stop + 1;
  }
  if (at < part.lines) {
    shown.push(`(Lines ${part.first + 1}-${at} of ${part.lines}. Go on with offset ${at + 1}.)`);
  } else if (part.first > 0) {
    shown.push(`(Lines ${part.first + 1}-${at} of ${part.lines}: the end of the file.)`);
  }
  return shown.join("\n");
}

function cut(line: string): string {
  const text = line.endsWith("\r") ? line.slice(0, -1) : line;
  if (text.length <= MAX_LINE_CHARS) return text;
  return `${text.slice(0, MAX_LINE_CHARS)}… (${text.length - MAX_LINE_CHARS} characters more)`;
}
