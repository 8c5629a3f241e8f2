import { type Agent, RUNNERS } from "../agent.ts";
import { READING_CONTEXT } from "../context-policy.ts";
import { READS } from "../permissions.ts";
import { SECURITY_AGENT_PROMPT } from "./prompt.ts";
import { validateAudit } from "./validate.ts";

export const securityAgent: Agent = {
  name: "SecurityAgent",
  description:
    "Audits a project for vulnerabilities and changes nothing: findings by file and line, with severity and CWE.",
  runners: RUNNERS,
  setup: { prompt: SECURITY_AGENT_PROMPT, temperature: 0.1, permission: READS },
  context: READING_CONTEXT,
  repairRounds: 2,
  validate: validateAudit,
};
