import type { Agent } from "./agent.ts";
import { codeAgent } from "./code-agent/index.ts";
import { debugAgent } from "./debug-agent/index.ts";
import { designAgent } from "./design-agent/index.ts";
import { docAgent } from "./doc-agent/index.ts";
import { securityAgent } from "./security-agent/index.ts";
import { testAgent } from "./test-agent/index.ts";

/** The agents as a table of contents: one folder with its test, one line here. */
export const agents: readonly Agent[] = [
  codeAgent,
  testAgent,
  designAgent,
  debugAgent,
  securityAgent,
  docAgent,
];

/** The agent of that exact name. */
export function findAgent(name: string): Agent | undefined {
  return agents.find((agent) => agent.name === name);
}
