import { type Agent, RUNNERS } from "../agent.ts";
import { WORKING_CONTEXT } from "../context-policy.ts";
import { WRITES } from "../permissions.ts";
import { DOC_AGENT_PROMPT } from "./prompt.ts";
import { validateDocs } from "./validate.ts";

export const docAgent: Agent = {
  name: "DocAgent",
  description: "Writes documentation: texts whose links and commands are real, and comments; never code.",
  runners: RUNNERS,
  setup: { prompt: DOC_AGENT_PROMPT, permission: WRITES },
  context: WORKING_CONTEXT,
  repairRounds: 2,
  validate: validateDocs,
};
