import type { FastifyInstance } from "fastify";
import type { z } from "zod";
import { AppError, type FieldIssue } from "#schemas";
import { parseForeignJson } from "../json.ts";

/**
 * JSON bodies, strictly: bytes that are not UTF-8 are refused instead of being replaced, and so are keys
 * that would reach an object's prototype. An empty body is `undefined`, for the route to judge.
 */
export function installJsonBodies(app: FastifyInstance): void {
  app.removeContentTypeParser(["application/json", "text/plain"]);
  app.addContentTypeParser("application/json", { parseAs: "buffer" }, (_request, body: Buffer, done) => {
    try {
      done(null, parseJson(body));
    } catch (error) {
      done(error instanceof Error ? error : new Error(String(error)));
    }
  });
}

/** @throws AppError ParseError. */
export function parseJson(body: Uint8Array): unknown {
  if (body.length === 0) return undefined;
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(body);
  } catch (error) {
    throw new AppError("ParseError", "The body is not valid UTF-8.", {}, error);
  }
  try {
    // A reviver makes parsing several times slower: only where such a key can be, plain or escaped.
    const suspicious = text.includes("__proto__") || text.includes("\\u00");
    return parseForeignJson(text, suspicious ? refusePrototypes : undefined);
  } catch (error) {
    if (error instanceof AppError) throw error;
    throw new AppError("ParseError", "The body is not valid JSON.", {}, error);
  }
}

function refusePrototypes(key: string, value: unknown): unknown {
  if (key === "__proto__") throw new AppError("ParseError", "The body has a key named __proto__.");
  return value;
}

/**
 * The checked body, query or params of a request.
 * @throws AppError InvalidParams with one issue per wrong field.
 */
export function parseInput<T extends z.ZodType>(schema: T, input: unknown): z.output<T> {
  const parsed = schema.safeParse(input ?? {});
  if (parsed.success) return parsed.data;
  const issues = issuesOf(parsed.error);
  const first = issues[0];
  const where = first === undefined || first.path === "" ? "" : `${first.path}: `;
  throw new AppError("InvalidParams", `${where}${first?.message ?? "The input is not valid."}`, { issues });
}

/** zod's issues with a path a person reads: `files[0].path`. */
export function issuesOf(error: z.ZodError): FieldIssue[] {
  return error.issues.map(({ path, message }) => ({ path: pathText(path), message }));
}

function pathText(path: readonly PropertyKey[]): string {
  return path
    .map((part, index) =>
      typeof part === "number" ? `[${part}]` : index === 0 ? String(part) : `.${String(part)}`,
    )
    .join("");
}
