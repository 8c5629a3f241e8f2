/** The agents' face: who they are and what counts as a result of theirs. */
export type { Agent, AgentSetup, ProposedChange, ProposedFile, Runner } from "./agent.ts";
export { agents, findAgent } from "./registry.ts";
