/** Everything a caller can prove themselves with. */
export { type AccessClaims, AccessTokens, type TokenSubject } from "./access-tokens.ts";
export { hashToken, isApiKey, newApiKey, newRefreshToken, tokenKind } from "./opaque.ts";
export { type TaskClaims, TaskTokens } from "./task-tokens.ts";
