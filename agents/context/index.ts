/** What agents are told besides the prompt, and how a session is kept within a model's context. Pure. */
export { compact } from "./compact.ts";
export { editorContext, projectNotes, sessionPreface, withContext } from "./preface.ts";
export { estimateMessages, estimateTokens } from "./tokens.ts";
