import { type Agent, RUNNERS } from "../agent.ts";
import { WORKING_CONTEXT } from "../context-policy.ts";
import { WORKS } from "../permissions.ts";
import { CODE_AGENT_PROMPT } from "./prompt.ts";
import { validateCodeChange } from "./validate.ts";

export const codeAgent: Agent = {
  name: "CodeAgent",
  description:
    "Writes and refactors code: reads the project, changes its files, runs what the project has to check them.",
  runners: RUNNERS,
  setup: { prompt: CODE_AGENT_PROMPT, permission: WORKS },
  context: WORKING_CONTEXT,
  repairRounds: 2,
  validate: validateCodeChange,
};
