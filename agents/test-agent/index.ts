import { type Agent, RUNNERS } from "../agent.ts";
import { WORKING_CONTEXT } from "../context-policy.ts";
import { WORKS } from "../permissions.ts";
import { TEST_AGENT_PROMPT } from "./prompt.ts";
import { validateTests } from "./validate.ts";

export const testAgent: Agent = {
  name: "TestAgent",
  description:
    "Writes tests and runs them: what it hands in has passed, with the tests that were there before.",
  runners: RUNNERS,
  setup: { prompt: TEST_AGENT_PROMPT, permission: WORKS },
  context: WORKING_CONTEXT,
  repairRounds: 2,
  validate: validateTests,
};
