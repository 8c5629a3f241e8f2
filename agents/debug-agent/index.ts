import { type Agent, RUNNERS } from "../agent.ts";
import { WORKING_CONTEXT } from "../context-policy.ts";
import { WORKS } from "../permissions.ts";
import { DEBUG_AGENT_PROMPT } from "./prompt.ts";
import { validateRepair } from "./validate.ts";

export const debugAgent: Agent = {
  name: "DebugAgent",
  description:
    "Finds the cause of an error: reproduces it, mends it, and shows that the same command passes.",
  runners: RUNNERS,
  setup: { prompt: DEBUG_AGENT_PROMPT, temperature: 0.2, permission: WORKS },
  context: WORKING_CONTEXT,
  repairRounds: 2,
  validate: validateRepair,
};
