/**
 * Which requirements this version claims to meet. Every claimed id must be cited, as `[ID]`, in the title
 * of at least one test (`requirements.test.ts` fails otherwise); an id not listed here is not yet built.
 */
export const CLAIMED = {
  "MU-1": "20 users run agents at the same time without conflict",
  "MU-2": "a work directory of its own per user and request",
  "MU-3": "clean environment, memory cap, token cap and time-out",
  "MU-4": "the user's own provider key, its precedence and its secrecy",
  "MU-5": "admission control with its five reasons",
  "MU-6": "releasing a slot ends the whole process tree and removes its directory",
  "MU-8": "output streamed in chunks in bounded memory",
  "MU-11": "graceful shutdown",
  "OC-1": "browser to back end to OpenCode and back, streamed",
  "OC-2": "GET /opencode/stream",
  "OC-3": "GET /test and GET /opencode/health",
  "OC-4": "PocketBase-compatible accounts",
  "OC-5": "the page: sign in, status, live streaming, readable errors",
  "OC-6": "environment names of the OpenCode plan",
  "OC-7": "errors in the stream; a client that leaves ends its run",
  "AG-3": "agent.dispatch, status, cancel, list, history",
  "SB-fs": "fs.* over the project store without escape, with quotas",
  "LLM-4": "tokens counted and recorded per user, model, endpoint and time",
  "US-2": "register, login, refresh, API keys, claims",
  "US-3": "check the balance, run, count, settle",
  "US-4": "administration of users, their roles and balances",
  "GW-1": "JSON-RPC 2.0 over HTTP and WebSocket, schemas and examples",
  "GW-2": "authentication, rate limits, CORS, consistent errors",
  "GW-3": "the project store",
  "DB-1": "one pool per process",
  "DB-6": "pagination",
  "TE-2": "the main job end to end in a browser",
} as const satisfies Record<string, string>;
