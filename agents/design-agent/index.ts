import { type Agent, RUNNERS } from "../agent.ts";
import { WORKING_CONTEXT } from "../context-policy.ts";
import { WRITES } from "../permissions.ts";
import { DESIGN_AGENT_PROMPT } from "./prompt.ts";
import { validateDesign } from "./validate.ts";

export const designAgent: Agent = {
  name: "DesignAgent",
  description: "Proposes user interfaces: previews as HTML that stands alone, and the reasons for them.",
  runners: RUNNERS,
  setup: { prompt: DESIGN_AGENT_PROMPT, permission: WRITES },
  context: WORKING_CONTEXT,
  repairRounds: 2,
  validate: validateDesign,
};
