/** The agents' face: who they are and what counts as a result of theirs. */
export type {
  Agent,
  AgentSetup,
  ContextPolicy,
  ProposedChange,
  ProposedFile,
  Runner,
  Verdict,
} from "./agent.ts";
export { RUNNERS } from "./agent.ts";
export type { CheckRun, Checks, Tree } from "./checks.ts";
export { type ParsedPlan, PLAN_PROMPT, parsePlan } from "./plan.ts";
export { agents, findAgent } from "./registry.ts";
export { checkProject } from "./validation/project.ts";
