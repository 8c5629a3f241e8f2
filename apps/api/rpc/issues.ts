import type { z } from "zod";
import { AppError, type FieldIssue } from "#schemas";

const MAX_ISSUES = 20;

/** The fields of text that may hold any character: they are stored as bytes. */
const STORED_AS_BYTES = new Set(["content"]);

/** zod's findings as InvalidParams with one issue per field, by the path a caller knows. */
export function invalidParams(error: z.ZodError): AppError {
  return invalidFields(error.issues.flatMap(fieldsOf));
}

function fieldsOf(issue: z.core.$ZodIssue): FieldIssue[] {
  const path = pathOf(issue.path);
  if (issue.code !== "unrecognized_keys") return [{ path, message: issue.message }];
  return issue.keys.map((key) => ({
    path: pathOf([...issue.path, key.slice(0, 100)]),
    message: "Unknown parameter.",
  }));
}

function pathOf(keys: readonly PropertyKey[]): string {
  return keys.reduce<string>(
    (path, key) => (typeof key === "number" ? `${path}[${key}]` : `${path}.${String(key)}`),
    "params",
  );
}

function invalidFields(issues: FieldIssue[]): AppError {
  const shown = issues.slice(0, MAX_ISSUES);
  const first = shown[0];
  const more = issues.length > 1 ? ` (and ${issues.length - 1} more)` : "";
  const message = first === undefined ? "Invalid params." : `${first.path}: ${first.message}${more}`;
  return new AppError("InvalidParams", message, { issues: shown });
}

/**
 * Refuse text that could not be stored as it came: half surrogate pairs (they would silently become
 * another character), and NUL where a text column is meant. Params are bounded in depth by their schema.
 */
export function checkText(params: unknown): void {
  const issues: FieldIssue[] = [];
  visit(params, "params", "", issues);
  if (issues.length > 0) throw invalidFields(issues);
}

function visit(value: unknown, path: string, key: string, issues: FieldIssue[]): void {
  if (typeof value === "string") {
    if (!value.isWellFormed()) {
      issues.push({ path, message: "Not well-formed Unicode: it has half a surrogate pair." });
    } else if (!STORED_AS_BYTES.has(key) && value.includes("\0")) {
      issues.push({ path, message: "A NUL character is not allowed." });
    }
  } else if (Array.isArray(value)) {
    for (const [index, item] of value.entries()) visit(item, `${path}[${index}]`, key, issues);
  } else if (typeof value === "object" && value !== null) {
    for (const [name, item] of Object.entries(value)) visit(item, `${path}.${name}`, name, issues);
  }
}
