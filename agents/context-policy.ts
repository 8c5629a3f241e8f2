import type { ContextPolicy } from "./agent.ts";

/** For agents that change a project over many steps: a session's former tasks matter to them. */
export const WORKING_CONTEXT: ContextPolicy = { maxTokens: 96_000, historyTokens: 6_000, editor: true };

/** For agents that look at a project as it is: what was asked before says little, their own reading much. */
export const READING_CONTEXT: ContextPolicy = { maxTokens: 96_000, historyTokens: 2_000, editor: true };
