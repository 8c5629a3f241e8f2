import { z } from "zod";
import { hostPath, shownPath } from "./paths.ts";
import { fitting } from "./text.ts";
import { defineTool } from "./tool.ts";

const MAX_SHOWN = 500;

export const list = defineTool({
  name: "list",
  permission: "list",
  description: `Lists a directory: names of files, and of directories with a slash at the end. Shows ${MAX_SHOWN} names at most; glob finds files below it.`,
  params: z.object({
    path: z.string().optional().describe("The directory (default: the working directory)"),
  }),
  title: ({ path }, directory) => shownPath(path ?? "", directory),
  async run({ path = "" }, { host, outputChars }) {
    const entries = await host.list(hostPath(path, host.directory));
    if (entries.length === 0) return "(The directory is empty.)";
    const names = entries.map(({ name, kind }) => (kind === "directory" ? `${name}/` : name));
    return fitting(names.slice(0, MAX_SHOWN), {
      total: names.length,
      chars: outputChars,
      hint: "List a directory below it, or use glob.",
    });
  },
});
