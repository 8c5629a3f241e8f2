import { AppError } from "#schemas";

/** SQLSTATE classes and codes we tell apart (PostgreSQL, appendix A). */
const UNIQUE_VIOLATION = "23505";
const FOREIGN_KEY_VIOLATION = "23503";
const QUERY_CANCELED = "57014";
const INVALID_PARAMETER_VALUE = "22023";
const RETRYABLE = new Set(["40001", "40P01"]);
/** Connection gone, server going down or coming up, no place left on it. */
const CONNECTION = new Set(["57P01", "57P02", "57P03", "57P05", "53300"]);
const SOCKET = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "ENOENT",
  "EPIPE",
  "ETIMEDOUT",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOTFOUND",
  "EAI_AGAIN",
]);
/** What `pg` says without a code when its socket or its pool fails. */
const MESSAGES =
  /^(Connection terminated|Connection ended|Client has encountered a connection error|timeout exceeded when trying to connect|timeout expired|Query read timeout|Cannot use a pool after calling end)/;

function codeOf(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

function constraintOf(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("constraint" in error)) return undefined;
  return typeof error.constraint === "string" ? error.constraint : undefined;
}

/** Whether a unique index (this one, when named) refused a row. */
export function isUniqueViolation(error: unknown, constraint?: string): boolean {
  return (
    codeOf(error) === UNIQUE_VIOLATION && (constraint === undefined || constraintOf(error) === constraint)
  );
}

/** Whether a reference to a missing row (by this constraint, when named) was refused. */
export function isForeignKeyViolation(error: unknown, constraint?: string): boolean {
  return (
    codeOf(error) === FOREIGN_KEY_VIOLATION &&
    (constraint === undefined || constraintOf(error) === constraint)
  );
}

/**
 * For queries whose one value the server may not know is a time zone: its list can be older than ours.
 * @throws AppError InvalidParams instead of the server's error; any other as it is.
 */
export function nameTimeZoneError(error: unknown): never {
  if (codeOf(error) !== INVALID_PARAMETER_VALUE) throw error;
  const message = "is not a time zone the database knows";
  throw new AppError("InvalidParams", `time_zone ${message}`, { issues: [{ path: "time_zone", message }] });
}

/** Whether the server rolled the transaction back because of others: the same again may succeed. */
export function isSerializationFailure(error: unknown): boolean {
  return RETRYABLE.has(codeOf(error) ?? "");
}

/** Whether the connection failed, as opposed to the statement. */
export function isConnectionFailure(error: unknown): boolean {
  if (error instanceof AppError) return error.cause !== undefined && isConnectionFailure(error.cause);
  const code = codeOf(error);
  if (code !== undefined) return code.startsWith("08") || CONNECTION.has(code) || SOCKET.has(code);
  if (error instanceof AggregateError) return error.errors.some(isConnectionFailure);
  return error instanceof Error && MESSAGES.test(error.message);
}

/** Whether no connection became free (or could be made) in time: DB-2 makes that an error at once. */
export function isPoolTimeout(error: unknown): boolean {
  const cause = error instanceof AppError ? error.cause : error;
  return cause instanceof Error && /^timeout exceeded when trying to connect/.test(cause.message);
}

/** Give failures of the database itself a name a caller understands; everything else stays as it is. */
export function nameDatabaseError(error: unknown): unknown {
  if (error instanceof AppError) return error;
  if (codeOf(error) === QUERY_CANCELED) {
    return new AppError("Timeout", "The database took too long to answer.", { hint: "Try again." }, error);
  }
  if (isConnectionFailure(error)) {
    return new AppError(
      "Unavailable",
      isPoolTimeout(error)
        ? "No database connection became free in time."
        : "The database cannot be reached.",
      { hint: "Try again in a few seconds.", retry_after_seconds: 2 },
      error,
    );
  }
  return error;
}
