import { z } from "zod";
import { hostPath, shownPath } from "./paths.ts";
import { bytesOf, count } from "./text.ts";
import { defineTool } from "./tool.ts";

export const write = defineTool({
  name: "write",
  permission: "edit",
  description:
    "Writes a file: makes it with its directories, or replaces all of it. To change a part of a file, use edit.",
  params: z.object({
    filePath: z.string().min(1).describe("Path of the file, relative to the working directory"),
    content: z.string().describe("The whole content"),
  }),
  title: ({ filePath }, directory) => shownPath(filePath, directory),
  async run({ filePath, content }, { host }) {
    const path = hostPath(filePath, host.directory);
    const bytes = bytesOf(content);
    await host.write(path, bytes);
    return `Wrote ${path}: ${count(bytes.byteLength, "byte")}.`;
  },
});
