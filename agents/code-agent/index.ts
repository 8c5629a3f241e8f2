import type { Agent } from "../agent.ts";
import { CODE_AGENT_PROMPT } from "./prompt.ts";
import { validateCodeChange } from "./validate.ts";

export const codeAgent: Agent = {
  name: "CodeAgent",
  description:
    "Writes and refactors code: reads the project, changes its files, runs what the project has to check them.",
  runners: ["opencode"],
  setup: {
    prompt: CODE_AGENT_PROMPT,
    // Everything runs inside the sandbox without network; what would leave it or wait for a person is denied.
    permission: {
      edit: "allow",
      bash: "allow",
      webfetch: "deny",
      websearch: "deny",
      external_directory: "deny",
      doom_loop: "deny",
      question: "deny",
      task: "deny",
      skill: "deny",
    },
  },
  validate: validateCodeChange,
};
