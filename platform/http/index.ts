/** What every server of ours is made with. */
export { issuesOf, parseInput, parseJson } from "./bodies.ts";
export { bearerOf, createRequireCaller, type RequireCaller, requireRole } from "./caller.ts";
export { errorHeaders, fromHttpError, sendError } from "./errors.ts";
export { type HealthCheck, HealthRegistry, type HealthReport } from "./health.ts";
export { Origins } from "./origins.ts";
export { closeHttpServer, createHttpServer, type HttpServerOptions, portOf } from "./server.ts";
