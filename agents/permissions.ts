import type { AgentSetup } from "./agent.ts";

type Permission = AgentSetup["permission"];

/** Everything runs inside the sandbox; what would leave it, wait for a person or start other agents is denied. */
const CLOSED = {
  webfetch: "deny",
  websearch: "deny",
  external_directory: "deny",
  doom_loop: "deny",
  question: "deny",
  task: "deny",
  skill: "deny",
} as const;

/** Changes files and runs commands. */
export const WORKS: Permission = { edit: "allow", bash: "allow", ...CLOSED };

/** Changes files, runs nothing. */
export const WRITES: Permission = { edit: "allow", bash: "deny", ...CLOSED };

/** Looks, and changes nothing. */
export const READS: Permission = { edit: "deny", bash: "deny", ...CLOSED };
