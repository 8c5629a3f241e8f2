/** The auth app's face, for the process that composes it. */
export { type EnsuredAdmin, ensureAdmin } from "./ensure-admin.ts";
export { type AuthDeps, registerAuth } from "./register-auth.ts";
