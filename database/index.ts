/** The database room's face: what every other room may import by name. */
export { isForeignKeyViolation, isUniqueViolation } from "./errors.ts";
export { migrate } from "./migrations/index.ts";
export * from "./open.ts";
export * from "./schema.ts";
