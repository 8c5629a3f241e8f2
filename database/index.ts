/** The database room's face: what every other room may import by name. */
export * from "./accounts/index.ts";
export { chooseDataDir } from "./embedded/identity.ts";
export { type EmbeddedOptions, type EmbeddedPostgres, startEmbeddedPostgres } from "./embedded/start.ts";
export { isForeignKeyViolation, isUniqueViolation } from "./errors.ts";
export * from "./events/index.ts";
export { inTransaction } from "./in-transaction.ts";
export * from "./ledger/index.ts";
export { migrate } from "./migrations/index.ts";
export * from "./open.ts";
export * from "./queue/index.ts";
export * from "./schema.ts";
