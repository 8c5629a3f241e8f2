import { bash } from "./bash.ts";
import { edit } from "./edit.ts";
import { glob } from "./glob.ts";
import { grep } from "./grep.ts";
import { list } from "./list.ts";
import { read } from "./read.ts";
import type { Tool } from "./tool.ts";
import { write } from "./write.ts";

export type { ExecOptions, ExecResult, HostEntry, ToolHost } from "./host.ts";
export { type PreparedCall, type Tool, ToolFailure } from "./tool.ts";

/** The tools as a table of contents, with opencode's names and fields: one file each, one line here. */
export const tools: readonly Tool[] = [read, write, edit, bash, grep, glob, list];

/** The tools an agent has; what its permissions do not mention it may use, as with opencode. */
export function toolsFor(permission: Readonly<Record<string, "allow" | "deny">>): Tool[] {
  return tools.filter((tool) => (permission[tool.permission] ?? permission["*"] ?? "allow") === "allow");
}
