import { z } from "zod";
import { GlobMatcher } from "./glob-match.ts";
import { hostPath } from "./paths.ts";
import { fitting } from "./text.ts";
import { defineTool, ToolFailure } from "./tool.ts";

const MAX_FILES = 50_000;
const MAX_SHOWN = 500;
/** Some 50 ms. */
const MAX_STEPS = 10_000_000;

export const glob = defineTool({
  name: "glob",
  permission: "glob",
  description: `Finds files by a pattern of their path, as in "src/**/*.ts" or "*.{json,md}"; one without a slash is looked for in every directory. Ignored files are left out. Shows ${MAX_SHOWN} paths at most.`,
  params: z.object({
    pattern: z.string().min(1).max(200).describe("The pattern, relative to path"),
    path: z.string().optional().describe("Directory to look in (default: the working directory)"),
  }),
  title: ({ pattern }) => pattern,
  async run({ pattern, path = "" }, { host, outputChars }) {
    const absolute = pattern.startsWith("/");
    const directory = absolute ? "" : hostPath(path, host.directory);
    const files = await host.walk({ maxFiles: MAX_FILES });
    const wanted = absolute ? `/${hostPath(pattern, host.directory)}` : pattern;
    const found = matching(files, directory === "" ? "" : `${directory}/`, wanted);
    const more =
      files.length >= MAX_FILES ? `\n(There are more than ${MAX_FILES} files; not all were looked at.)` : "";
    if (found.length === 0) return `No file matches.${more}`;
    const limits = { total: found.length, chars: outputChars, hint: "Use a narrower pattern." };
    return fitting(found.slice(0, MAX_SHOWN), limits) + more;
  },
});

function matching(files: readonly string[], prefix: string, pattern: string): string[] {
  const matcher = new GlobMatcher(pattern, MAX_STEPS);
  try {
    return files.filter((file) => file.startsWith(prefix) && matcher.matches(file.slice(prefix.length)));
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new ToolFailure("The pattern takes too long on these files. Use a simpler one.");
  }
}
