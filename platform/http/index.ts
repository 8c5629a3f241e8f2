/** What every server of ours is made with. */
export { addressKey } from "./address-key.ts";
export { issuesOf, parseInput, parseJson } from "./bodies.ts";
export { bearerOf, createRequireCaller, type RequireCaller, requireRole } from "./caller.ts";
export { errorHeaders, fromHttpError, sendError } from "./errors.ts";
export { type HealthCheck, HealthRegistry, type HealthReport } from "./health.ts";
export { Origins } from "./origins.ts";
export { closeHttpServer, createHttpServer, type HttpServerOptions, portOf } from "./server.ts";
export { limitBodies, SMALL_BODY_BYTES } from "./small-bodies.ts";
