import { z } from "zod";
import { hostPath, shownPath } from "./paths.ts";
import { replaceText } from "./replace.ts";
import { bytesOf, textOf } from "./text.ts";
import { defineTool } from "./tool.ts";

const MAX_NAMED_LINES = 20;

export const edit = defineTool({
  name: "edit",
  permission: "edit",
  description:
    "Replaces text in a file. oldString must stand in it exactly once, letter for letter and without the line numbers that read shows; with replaceAll every occurrence is replaced.",
  params: z.object({
    filePath: z.string().min(1).describe("Path of the file, relative to the working directory"),
    oldString: z.string().describe("The text to replace, with enough lines around it to be unique"),
    newString: z.string().describe("What to put in its place"),
    replaceAll: z.boolean().optional().describe("Replace every occurrence (default false)"),
  }),
  title: ({ filePath }, directory) => shownPath(filePath, directory),
  async run({ filePath, oldString, newString, replaceAll }, { host }) {
    const path = hostPath(filePath, host.directory);
    const { text, lines } = replaceText(
      textOf(await host.read(path), path),
      oldString,
      newString,
      replaceAll,
    );
    await host.write(path, bytesOf(text));
    const named = lines.slice(0, MAX_NAMED_LINES).join(", ");
    return `Changed ${path} at line ${named}${lines.length > MAX_NAMED_LINES ? " and more" : ""}.`;
  },
});
