/** The platform's face: what every server needs and no domain owns. */
export type { Authenticator, Caller } from "./authenticate.ts";
export { type Config, readConfig } from "./config/config.ts";
export { ConfigError } from "./config/read-env.ts";
export * from "./http/index.ts";
export { newId, randomBase32 } from "./ids.ts";
export { Lifecycle } from "./lifecycle.ts";
export { createLogger, type Log } from "./log.ts";
export * from "./password.ts";
export { openSecrets, type Secrets } from "./secrets.ts";
export { rateLimited, type Take, TokenBuckets } from "./token-bucket.ts";
export * from "./tokens/index.ts";
