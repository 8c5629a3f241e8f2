import { type DestinationStream, type Logger, pino, stdTimeFunctions } from "pino";
import { build as pretty } from "pino-pretty";
import type { Config } from "./config/config.ts";

export type Log = Logger;

/** Names of fields that hold secrets wherever they appear, down to three levels. */
const SECRET_FIELDS = [
  "authorization",
  "cookie",
  "password",
  "old_password",
  "new_password",
  "api_key",
  "apiKey",
  "access_token",
  "refresh_token",
  "token",
  "secret",
  "masterKey",
];

const REDACTED = SECRET_FIELDS.flatMap((field) => [field, `*.${field}`, `*.*.${field}`]);

/**
 * The one logger of a process: JSON lines, or lines for people; secrets are struck out by field name.
 * Written from this very thread: a transport worker would lose the last lines of a crash.
 */
export function createLogger(config: Config["log"], destination?: DestinationStream): Log {
  const options = {
    level: config.level,
    redact: { paths: REDACTED, censor: "[redacted]" },
    timestamp: stdTimeFunctions.isoTime,
    base: null,
  };
  if (destination !== undefined) return pino(options, destination);
  if (!config.pretty) return pino(options);
  return pino(
    options,
    pretty({ sync: true, singleLine: true, colorize: process.stdout.isTTY, translateTime: "SYS:HH:MM:ss.l" }),
  );
}
